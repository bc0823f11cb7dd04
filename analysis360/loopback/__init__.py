"""A Hub of one's own on this machine: a store to publish to, or a series on disk served as if it were released.

Clients of the Hugging Face Hub speak to it by `HF_ENDPOINT`, without their Xet transport, which it does not offer.
"""

from analysis360.loopback.faults import Fault, Faults
from analysis360.loopback.published import Published, published
from analysis360.loopback.serve import Loopback, serve

__all__ = ["Fault", "Faults", "Loopback", "Published", "published", "serve"]
