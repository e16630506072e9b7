"""A visual tokenizer learns to paint images from codes: VQ-VAE, https://arxiv.org/abs/1711.00937, equation 3, with its codes' moving average.

The reconstruction is the squared error of normalised pixels; the codes follow the encoder in `stepped`, as `vitral.models.tokenizer` says.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from vitral.data.loader import Batch
from vitral.errors import VitralError
from vitral.models.common import ImageModel
from vitral.models.tokenizer import Tokenizer
from vitral.objectives.noise import noise
from vitral.objectives.objective import Objective


@dataclass(frozen=True)
class Tokenise(Objective):
    """What is trained is the tokenizer itself."""

    commitment: float = 0.25
    """Weight of the squared distance between a patch's vector and its code; beta in the paper."""

    def __post_init__(self) -> None:
        if self.commitment < 0:
            raise VitralError(f"commitment={self.commitment}: must be 0 or more; the paper has 0.25")

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """`loss`; `reconstruction` and `commitment`, its parts; `perplexity`, the number of codes in use."""
        assert isinstance(model, Tokenizer)
        images, book = batch.images, model.codebook
        vectors = model.embed(images)  # [B, N, d]
        indices = book.nearest(vectors.detach())  # [B, N]
        codes = book.vectors[indices]
        # Straight through: the decoder reads the codes, its gradient goes to the encoder as if there were none.
        painted = model.decode(vectors + (codes - vectors).detach(), (images.shape[2], images.shape[3]))
        reconstruction = F.mse_loss(painted.float(), images)
        commitment = (vectors - codes).square().sum(-1).mean()
        if model.training:
            self.gather(model, batch, vectors, indices)
        return {
            "loss": reconstruction + self.commitment * commitment,
            "reconstruction": reconstruction,
            "commitment": commitment,
            "perplexity": book.perplexity(),
        }

    def gather(self, model: Tokenizer, batch: Batch, vectors: Tensor, indices: Tensor) -> None:
        """Add a micro-batch to what the codes will follow, which starts anew with each step."""
        # No gradient yet: the step's first micro-batch, perhaps after one for which memory ran out.
        if next(model.parameters()).grad is None:
            model.codebook.clear()
        uniform = noise(batch.keys, "spare codes", indices.shape[1], indices.device)  # [B, N]
        model.codebook.gather(vectors.detach().flatten(0, 1), indices.flatten(), uniform.flatten())

    def stepped(self, model: nn.Module, share: float) -> None:
        """The codes follow what the step's patches looked like."""
        assert isinstance(model, Tokenizer)
        model.codebook.update()

    def result(self, model: nn.Module) -> ImageModel:
        assert isinstance(model, Tokenizer)
        return model

    def pictures(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        assert isinstance(model, Tokenizer)
        images = batch.images
        painted = model.decode(
            model.encode(model.embed(images), model.grid_of(images)), (images.shape[2], images.shape[3])
        )
        return {"image": images, "painted": painted.float()}
