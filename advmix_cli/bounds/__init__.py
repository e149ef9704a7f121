"""Lower bounds on robust accuracy: what a network is proved to say everywhere in a ball around an image.

`trace.py` reads any network as layers; `layers.py` has what each does to intervals and to linear functions;
`intervals.py` goes forward (IBP), `linear.py` backward (CROWN); `certify.py` gives verdicts on images and sets.
"""

from advmix_cli.bounds.certify import Certified, certify_set, margins
from advmix_cli.bounds.trace import Traced, trace

__all__ = ["Certified", "Traced", "certify_set", "margins", "trace"]
