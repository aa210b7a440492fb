"""Label refinement for head images by Gaussian splatting, in JAX.

What `__init__.pyi` names is the public interface; each name is imported when it is first used, so that a program that
only rasterizes never waits for the parser's libraries.
"""

import lazy_loader

from jsplat.version import VERSION

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = VERSION
