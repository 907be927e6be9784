"""Where ImageBind keeps its model: `from vitlens.imagebind.models import imagebind_model`."""

from vitlens.imagebind.absent import answer
from vitlens.imagebind.models import imagebind_model as imagebind_model

__all__ = ["imagebind_model"]

__getattr__ = answer(__name__, "imagebind_model, helpers, multimodal_preprocessors and transformer are here")
