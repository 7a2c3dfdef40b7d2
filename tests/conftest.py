import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state, alone or in the whole run."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - libraries under test may draw from the global state
