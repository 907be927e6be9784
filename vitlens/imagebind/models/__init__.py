"""Where ImageBind keeps its model: `from vitlens.imagebind.models import imagebind_model`."""

from vitlens.imagebind.models import imagebind_model as imagebind_model

__all__ = ["imagebind_model"]
