"""One thread per test process, and a home of its own for everything that the suite stores."""

import os
import tempfile

import hypothesis
import pytest
import torch

torch.set_num_threads(1)
# a busy machine is no bug, and the suite draws the same examples each time
hypothesis.settings.register_profile("steady", deadline=None, derandomize=True)
hypothesis.settings.load_profile("steady")
os.environ["UNSEEN_HOME"] = tempfile.mkdtemp(prefix="unseen-tests-")


@pytest.fixture(autouse=True)
def _quiet_global_generator():
    """No test may depend on what another one drew."""
    torch.manual_seed(0)
