"""The sample shop: a database of any size, made from a seed, that holds what dumps and restores stumble over.

`python -m deployments.sample --megabytes 50` fills the database that DATABASE_URL names.
"""

from deployments.sample.load import SampleRefused, fill

__all__ = ["SampleRefused", "fill"]
