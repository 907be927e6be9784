"""Where ImageBind keeps its transformer: nothing of it is here, and every name says what is."""

from vitlens.imagebind.absent import LAYERS, answer

__all__: list[str] = []

__getattr__ = answer(
    __name__, f"{LAYERS}, a timm or open_clip tower; for blocks of one's own take timm.layers or timm.models.vision_transformer"
)
