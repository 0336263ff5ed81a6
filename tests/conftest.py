"""What every test runs under, the kernels that nbval starts included."""

import os
import signal

import pytest
from hypothesis import settings

# A name on the hub then fails at once instead of after a minute.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# With several pytest workers, each (and each notebook's kernel) takes its share of the processors.
workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if workers > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

# Started in the background a shell has them ignore Ctrl-C, and so would the commands under test.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No time limit for an example: machines differ. On a CI machine always the same examples.
settings.register_profile("sedd-mini", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("sedd-mini")


@pytest.fixture
def text(tmp_path_factory) -> str:
    """The path of a text of 40 short paragraphs, in a folder of its own."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    words = "the cat sat on the mat and the dog sat on the cat "
    path.write_text("\n\n".join(words * 2 + str(i) for i in range(40)))
    return str(path)
