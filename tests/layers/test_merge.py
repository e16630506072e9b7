"""Token merging against its paper, written out patch by patch, and what must not change."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asking import predictor_of
from families import CLASSIFIERS, small
from vitral.errors import VitralError
from vitral.layers.attention import attend
from vitral.layers.merge import Merging
from vitral.models.plain import forward_merging


def written_out(tokens, keys, sizes, each, protected):
    """Section 3 of the paper for one image: lists of tokens and sizes, the protected first, then what stayed, then what others went into."""
    patches = list(range(protected, len(tokens)))
    given_away, taking = patches[1::2], patches[::2]
    unit = keys / keys.norm(dim=-1, keepdim=True)
    best = {i: max(taking, key=lambda j, i=i: float(unit[i] @ unit[j])) for i in given_away}
    closest = sorted(given_away, key=lambda i: -float(unit[i] @ unit[best[i]]))[:each]
    kept = [*range(protected), *(i for i in given_away if i not in closest), *taking]
    members = {i: [i, *(k for k in closest if best[k] == i)] for i in kept}
    total = [sum(sizes[k] for k in members[i]) for i in kept]
    means = [sum(tokens[k] * sizes[k] for k in members[i]) / n for i, n in zip(kept, total, strict=True)]
    return torch.stack(means), torch.stack(total)


@settings(max_examples=40)
@given(protected=st.integers(0, 3), count=st.integers(1, 13), each=st.integers(1, 9), seed=st.integers(0, 99))
def test_a_layer_is_the_papers(protected, count, each, seed):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(2, protected + count, 6, generator=generator, dtype=torch.float64)
    merging = Merging(tokens, each, protected)
    wanted = [(image, image.new_ones(len(image))) for image in tokens]
    now = tokens
    for _ in range(3):
        q, k, v = torch.randn(3, 2, 2, now.shape[1], 4, generator=generator, dtype=torch.float64)
        probabilities = (q @ k.mT / 2).exp() * merging.sizes[:, None, None]
        mixed = probabilities / probabilities.sum(-1, keepdim=True) @ v
        torch.testing.assert_close(merging.attend(q, k, v), mixed)
        before, now = now.shape[1], merging(now)
        assert before - now.shape[1] == min(each, (before - protected) // 2)  # half of the patches at most
        wanted = [
            written_out(one, keys, sizes, each, protected) for (one, sizes), keys in zip(wanted, k.mean(1), strict=True)
        ]
        for i, (one, sizes) in enumerate(wanted):
            torch.testing.assert_close(now[i], one)
            torch.testing.assert_close(merging.sizes[i], sizes)
    back = merging.undone(now)
    assert back.shape == tokens.shape
    torch.testing.assert_close(back[:, :protected], tokens[:, :protected])  # no token was merged into these
    patches = slice(protected, None)  # whose mean stays what it was
    torch.testing.assert_close(back[:, patches].sum(1), tokens[:, patches].sum(1))


PLAIN = ["vit", "deit", "hybrid"]


@pytest.mark.parametrize("family", PLAIN)
def test_nothing_merged_is_the_model_itself(family):
    predictor = predictor_of(small(family))
    pixels = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    as_it_is = predictor.engine(pixels.numpy())
    assert torch.equal(predictor.merging(0).engine(pixels.numpy()), as_it_is)
    assert (predictor.merging(1).engine(pixels.numpy()) - as_it_is).abs().max() > 1e-4  # and something merged is not
    images = predictor.card.preprocess.normalise(pixels)
    torch.testing.assert_close(forward_merging(predictor.model, images, 0), as_it_is, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("vit", {"class_token": False, "pooling": "mean"}),
        ("vit", {"num_registers": 3, "layer_scale": 0.5}),
        ("vit", {"pre_norm": False, "pooling": "mean", "beside": "edges"}),
        ("deit", {"distilled": True}),
    ],
)
def test_merging_patches_that_are_the_same_changes_nothing(family, options):
    """Whatever went is counted in attention and means as often as it was there."""
    model = small(family, depth=3, **options)
    model.state_dict()["pos_embed"][:, -16:] = 0
    images = torch.randn(2, 3, 8, 8).tile(4, 4)  # one patch, sixteen times
    for each in (1, 4, 8):
        torch.testing.assert_close(forward_merging(model, images, each), model(images), atol=1e-5, rtol=0)


def test_attention_counts_a_token_as_often_as_it_stands_for_patches():
    q, k, v = torch.randn(3, 1, 2, 4, 8).unbind(0)
    sizes = torch.tensor([[1.0, 3, 1, 2]])
    merging = Merging(torch.zeros(1, 4, 16), 1, 1)
    merging.sizes = sizes
    again = [each.repeat_interleave(sizes[0].long(), dim=2) for each in (k, v)]
    torch.testing.assert_close(merging.attend(q, k, v), attend(q, *again))


@pytest.mark.parametrize("family", [name for name in CLASSIFIERS if name not in PLAIN])
def test_what_is_no_plain_vit_is_refused(family):
    with pytest.raises(VitralError, match="is for plain ViTs with one answer"):
        predictor_of(small(family)).merging(2)


def test_what_makes_no_sense_is_refused():
    predictor = predictor_of(small("vit"))
    with pytest.raises(VitralError, match="give 0 or more"):
        predictor.merging(-1)
    merged = predictor.merging(2)
    for ask in (lambda: merged.model, lambda: merged.explain(torch.zeros(3, 32, 32, dtype=torch.uint8))):
        with pytest.raises(VitralError, match="cannot be looked into; use the same without"):
            ask()
