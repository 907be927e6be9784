"""Where ImageBind keeps small layers: those that a head or a loss of one's own may use are here."""

from open_clip.transformer import QuickGELU as QuickGELU

from vitlens.imagebind.absent import LAYERS, answer
from vitlens.imagebind.postprocessors import LearnableLogitScaling as LearnableLogitScaling
from vitlens.imagebind.postprocessors import Normalize as Normalize

__all__ = ["LearnableLogitScaling", "Normalize", "QuickGELU"]

__getattr__ = answer(
    __name__,
    f"Normalize, LearnableLogitScaling and QuickGELU are here; {LAYERS}",
    {
        "EinOpsRearrange": "einops.layers.torch.Rearrange is such a layer",
        "cast_if_src_dtype": "torch's own x.to(dtype) does it",
        "VerboseNNModule": "torch.nn.Module prints itself",
    },
)
