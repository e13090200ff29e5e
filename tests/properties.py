"""How many examples a property is tested on.

`make test` draws the same ones each time, so that no draw decides whether a commit is good.
`make properties` (`HYPOTHESIS_PROFILE=fresh`) draws fresh ones, ten times as many; what it finds is
mended and fails from then on.
"""

import os

import hypothesis

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "steady")
TIMES = {"steady": 1, "fresh": 10}[PROFILE]


def load_profile() -> None:
    """Before the tests are collected: what they do not say themselves is taken from the profile."""
    # no deadline: a busy machine is no bug
    shared = hypothesis.settings(deadline=None)
    hypothesis.settings.register_profile("steady", shared, derandomize=True)
    # filtering and drawing slowly say something about the machine or the strategy, nothing about
    # the code
    fresh = {
        "max_examples": 100 * TIMES,
        "suppress_health_check": [hypothesis.HealthCheck.too_slow],
    }
    hypothesis.settings.register_profile("fresh", shared, print_blob=True, **fresh)
    hypothesis.settings.load_profile(PROFILE)


def examples(n: int) -> hypothesis.settings:
    """For properties that cost more than a moment: `n` examples in the suite, ten times as many
    fresh ones.
    """
    return hypothesis.settings(max_examples=n * TIMES)
