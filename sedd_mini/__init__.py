"""SEDD-mini: score entropy discrete diffusion (Lou, Meng, Ermon 2023), small and readable."""

from sedd_mini.graphs import AbsorbingGraph, UniformGraph
from sedd_mini.noise import GeometricNoise, LogLinearNoise

__all__ = ["AbsorbingGraph", "GeometricNoise", "LogLinearNoise", "UniformGraph"]
