"""What came after SEDD: one idea a file, each proved on worlds small enough to count."""
