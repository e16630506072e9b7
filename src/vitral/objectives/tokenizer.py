"""A visual tokenizer learns to paint images from codes: VQ-VAE, https://arxiv.org/abs/1711.00937, equation 3, its codes being moving averages.

The reconstruction loss is the squared error of normalised pixels. The codes have no gradient: `stepped` moves them towards the encoder's vectors
(`vitral.models.tokenizer`).
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from vitral.data.loader import Batch
from vitral.errors import VitralError
from vitral.models.common import ImageModel
from vitral.models.tokenizer import Tokenizer
from vitral.objectives.noise import noise
from vitral.objectives.objective import Objective, Together


@dataclass(frozen=True)
class Tokenise(Objective):
    """The model is a Tokenizer, and is saved whole."""

    commitment: float = 0.25
    """Weight of the squared distance between a patch's vector and its code; the paper's beta."""

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
        # Straight through: the decoder reads the codes, and its gradient reaches the encoder as if they were the vectors.
        painted = model.decode(vectors + (codes - vectors).detach(), (images.shape[2], images.shape[3]))
        reconstruction = F.mse_loss(painted.float(), images)
        commitment = (vectors - codes).square().sum(-1).mean()
        if model.training and not batch.idle:
            self.gather(model, batch, vectors, indices)
        return {
            "loss": reconstruction + self.commitment * commitment,
            "reconstruction": reconstruction,
            "commitment": commitment,
            "perplexity": book.perplexity(),
        }

    def gather(self, model: Tokenizer, batch: Batch, vectors: Tensor, indices: Tensor) -> None:
        """Add a micro-batch to the sums that the codes will follow."""
        uniform = noise(batch.keys, "spare codes", indices.shape[1], indices.device)  # [B, N]
        model.codebook.gather(vectors.detach().flatten(0, 1), indices.flatten(), uniform.flatten())

    def begun(self, model: nn.Module) -> None:
        """The codes' sums start from 0."""
        assert isinstance(model, Tokenizer)
        model.codebook.clear()

    def gathered(self, model: nn.Module, together: Together) -> None:
        """The codes follow the vectors of all, and unused ones go to the first draws among all."""
        assert isinstance(model, Tokenizer)
        book = model.codebook
        for sums in (book.sums, book.counts):
            together.add(sums)
        book.offer(together.join(book.rank), together.join(book.spare))

    def stepped(self, model: nn.Module, share: float) -> None:
        """Move each code towards the mean of the vectors that chose it in this step."""
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
