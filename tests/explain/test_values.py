"""Each method against a direct, slow computation from its paper's equations, or against what it must add up to."""

import numpy as np
import pytest
import torch

import reference
from asking import SIZE, predictor_of
from families import small
from vitral.checkpoints.create import open_model
from vitral.explain.explain import attention_maps, explain, visualize_attention
from vitral.explain.perturbation import cell_side, cell_sums, log_odds

PIXELS = np.random.default_rng(3).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def close(found, wanted):
    """Whether two maps agree to 1e-5 of the largest value."""
    wanted = np.asarray(wanted)
    largest = np.abs(wanted).max()
    assert largest > 0
    np.testing.assert_allclose(np.reshape(found, wanted.shape), wanted, rtol=0, atol=1e-5 * largest)


def vit(**overrides):
    return small("vit", image_size=SIZE, depth=3, num_registers=1, **overrides)


def explicit(model, images):
    """A ViT's forward pass with the softmax written out: logits, the attention of each layer [H, N, N], the tokens after each, and
    the normed tokens that each layer and then the head reads."""
    tokens, attention, between, read = model.embed(images), [], [], []
    for block in model.blocks:
        read.append(block.norm1(tokens))
        x = read[-1][0]  # [N, D]
        q, k, v = (part.unflatten(1, (2, -1)) for part in block.attn.qkv(x).chunk(3, dim=-1))  # each [N, H, d]
        maps = torch.stack([(q[:, i] @ k[:, i].T / q.shape[-1] ** 0.5).softmax(-1) for i in range(2)])
        attention.append(maps)
        mixed = torch.cat([maps[i] @ v[:, i] for i in range(2)], dim=-1)
        tokens = tokens + block.attn.proj(mixed)
        tokens = tokens + block.mlp(block.norm2(tokens))
        between.append(tokens)
    read.append(model.norm(tokens))
    return model.head(model.pool(read[-1])), attention, between, read


def weighted(logit, attention):
    """[N, N] for each layer: the mean over heads of the positive part of attention times gradient, element by element."""
    layers = []
    for maps, gradient in zip(attention, torch.autograd.grad(logit, attention, retain_graph=True), strict=True):
        heads, n, _ = maps.shape
        mean = np.zeros((n, n))
        for head in range(heads):
            for i in range(n):
                for j in range(n):
                    mean[i, j] += max(0.0, float(maps[head, i, j].detach()) * float(gradient[head, i, j])) / heads
        layers.append(mean)
    return layers


def readers(model):
    """The rows of the tokens that the head reads."""
    return [0] if model.config.pooling == "cls" else list(range(model.num_prefix, model.num_prefix + 15))


POOLINGS = [{}, {"pooling": "mean"}, {"pooling": "mean", "class_token": False}]


@pytest.mark.parametrize("options", POOLINGS)
def test_rollouts_and_relevance_are_the_papers(options):
    model = vit(**options)
    predictor = predictor_of(model)
    logits, attention, _, _ = explicit(model, predictor.preprocess(PIXELS)[None])
    n, rows, first = attention[0].shape[-1], readers(model), model.num_prefix
    layers = weighted(logits[0, 1], attention)

    plain = [maps.detach().numpy().mean(0) for maps in attention]
    for method, matrices in (("rollout", plain), ("gradient_rollout", layers)):
        rolled = np.eye(n)
        for matrix in matrices:  # Abnar & Zuidema: 0.5 W + 0.5 I, or its like for rows that do not add up to one
            mixed = matrix + np.eye(n)
            rolled = (mixed / mixed.sum(1, keepdims=True)) @ rolled
        wanted = rolled[rows].mean(0)[first:].reshape(3, 5)
        close(explain(predictor, PIXELS, method, target=1).grid, wanted)
        close(explain(predictor, PIXELS, method, target=1, query=(1, 2)).grid.ravel(), rolled[first + 7, first:])

    relevance = np.eye(n)
    for matrix in layers:  # Chefer et al., equation 6
        relevance = relevance + np.array(
            [[sum(matrix[i, m] * relevance[m, j] for m in range(n)) for j in range(n)] for i in range(n)]
        )
    wanted = relevance[rows].mean(0)[first:].reshape(3, 5)
    close(explain(predictor, PIXELS, "relevance", target=1).grid, wanted)


def test_relevance_of_a_cait_goes_from_the_patches_to_the_class_token():
    model = small("cait", image_size=SIZE)
    predictor = predictor_of(model)
    logits, attention = model.forward_with_attention(predictor.preprocess(PIXELS)[None])
    layers = [
        (a * g).clamp(min=0).mean(1)[0].detach().double().numpy()
        for a, g in zip(attention, torch.autograd.grad(logits[0, 2], attention), strict=True)
    ]
    patches = np.eye(15)
    for matrix in layers[:2]:
        patches = patches + matrix @ patches
    of_class = np.zeros(15)
    for matrix in layers[2:]:  # [1, 1 + 15]: the class token attends to itself and the patches, which stay as they are
        of_class = of_class + matrix[0, 0] * of_class + matrix[0, 1:] @ patches
    found = explain(predictor, PIXELS, "relevance", target=2).grid
    close(found, of_class.reshape(3, 5))


def test_relevance_of_a_distilled_deit_is_that_of_both_tokens_for_the_answer_of_both():
    model = small("deit", image_size=SIZE, distilled=True)
    predictor = predictor_of(model)
    logits, attention = model.forward_with_attention(predictor.preprocess(PIXELS)[None])
    total = np.eye(17)
    for a, g in zip(attention, torch.autograd.grad(logits[0, 2], attention), strict=True):
        total = total + (a * g).clamp(min=0).mean(1)[0].detach().double().numpy() @ total
    wanted = (total[0] + total[1])[2:].reshape(3, 5) / 2
    close(explain(predictor, PIXELS, "relevance", target=2).grid, wanted)
    both = attention[-1][0].mean(0).detach().numpy()[:2, 2:].mean(0).reshape(3, 5)
    close(explain(predictor, PIXELS).grid, both)


@pytest.mark.parametrize("options", POOLINGS)
def test_legrad_is_the_papers(options):
    model = vit(**options)
    predictor = predictor_of(model)
    _, attention, between, _ = explicit(model, predictor.preprocess(PIXELS)[None])
    wanted = np.zeros(15)
    for maps, tokens in zip(attention, between, strict=True):
        normed = model.norm(tokens)[0]
        own = normed[0] if model.config.pooling == "cls" else normed[model.num_prefix :].mean(0)
        score = own @ model.head.weight[3] + model.head.bias[3]
        (gradient,) = torch.autograd.grad(score, [maps], retain_graph=True)
        heads, n, _ = gradient.shape
        for j in range(15):
            entries = [max(0.0, float(gradient[h, i, model.num_prefix + j])) for h in range(heads) for i in range(n)]
            wanted[j] += sum(entries) / (heads * n * len(attention))
    close(explain(predictor, PIXELS, "legrad", target=3).grid.ravel(), wanted)


@pytest.mark.parametrize(("options", "reader"), [({}, 2), ({"pooling": "mean"}, 3)])
def test_grad_cam_is_the_papers_on_the_patches_as_they_are_last_read(options, reader):
    model = vit(**options)
    predictor = predictor_of(model)
    logits, _, _, read = explicit(model, predictor.preprocess(PIXELS)[None])
    (gradient,) = torch.autograd.grad(logits[0, 0], [read[reader]])
    first = model.num_prefix
    alpha = gradient[0, first:].mean(0)  # equation 1
    wanted = [max(0.0, float((alpha * token).sum().detach())) for token in read[reader][0, first:]]  # equation 2
    found = explain(predictor, PIXELS, "grad_cam", target=0).grid
    close(found.ravel(), wanted)
    assert found.any()


def test_grad_cam_of_a_resnet_is_on_its_last_map():
    model = small("resnet", image_size=(64, 96))
    predictor = predictor_of(model, (64, 96))
    last = model.features(predictor.preprocess(PIXELS)[None])[-1]  # [1, 2, 3, D]
    alphas = model.head.weight / 6  # the head is linear on the mean of the map
    wanted = (last[0] @ alphas.T).relu().detach().numpy()  # [2, 3, K]
    close(np.stack([explain(predictor, PIXELS, "grad_cam", target=k).grid for k in range(4)], axis=-1), wanted)


@pytest.mark.parametrize("family", ["vit", "deit", "cait", "beit", "dino", "swin", "swinv2", "pvt", "pvt_v2", "resnet"])
def test_integrated_gradients_are_complete(family):
    model = small(family, image_size=SIZE)
    predictor = predictor_of(model)
    x = predictor.preprocess(PIXELS)[None]
    with torch.no_grad():
        rise = float((model(x) - model(torch.zeros_like(x)))[0, 1])
    found = explain(predictor, PIXELS, "integrated_gradients", target=1)
    assert found.grid.sum() == pytest.approx(rise, rel=0.015)
    assert "rough" not in found.method


def test_cells_sum_pixels_up_to_the_edge():
    pixels = torch.arange(2 * 5 * 7, dtype=torch.float32).reshape(2, 5, 7)
    found = cell_sums(pixels, 4)
    np.testing.assert_allclose(
        found, [[pixels[:, r : r + 4, c : c + 4].sum() for c in (0, 4)] for r in (0, 4)], rtol=1e-6
    )
    assert cell_side([4, 8, 16, 32], (224, 224)) == 16
    assert cell_side([4, 8, 16, 32], (32, 64)) == 4
    assert cell_side([16], (384, 384)) == 16


@pytest.mark.parametrize("task", ["classify", "multilabel"])
def test_occlusion_covers_one_square_after_the_other(task):
    size = (28, 37)
    model = small("vit", image_size=size)
    predictor = predictor_of(model, size, task)
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)

    def answer(pixels):
        logits = predictor.logits(predictor.card.preprocess.normalise(pixels)[None])
        p = predictor.probabilities(logits.double())[0, 2]
        return float((p / (1 - p)).log())

    pixels = torch.from_numpy(picture).permute(2, 0, 1).float()
    wanted = np.zeros((4, 5))
    for row in range(4):
        for column in range(5):
            covered = pixels.clone()
            covered[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 127.5
            wanted[row, column] = answer(pixels) - answer(covered)
    found = explain(predictor, picture, "occlusion", target="kind 2")
    close(found.grid, wanted)
    assert found.extent == (32 / 28, 40 / 37)


def test_log_odds_are_of_one_class_against_all_others():
    logits = torch.randn(5, 4, dtype=torch.double)
    p = logits.softmax(-1)[:, 2]
    torch.testing.assert_close(log_odds(logits, 2, False), (p / (1 - p)).log())
    torch.testing.assert_close(log_odds(logits, 2, True), logits[:, 2])
    torch.testing.assert_close(log_odds(logits[:, :1], 0, False), logits[:, 0])


def test_logit_lens_reads_each_patch_as_the_head_would():
    model = small("deit", image_size=SIZE, distilled=True)
    predictor = predictor_of(model)
    tokens = model.embed(predictor.preprocess(PIXELS)[None])
    for layer, block in enumerate(model.blocks):
        tokens = block(tokens)
        patches = model.norm(tokens)[0, 2:]
        of_class, of_teacher = model.head.both(torch.cat([patches, patches], dim=-1))
        wanted = log_odds((of_class + of_teacher) / 2, 1, False).detach().reshape(3, 5)
        found = explain(predictor, PIXELS, "logit_lens", layer=layer, target=1).grid
        close(found, wanted)


def test_similarity_is_the_cosine_with_what_the_head_reads_or_with_a_patch():
    model = vit()
    predictor = predictor_of(model)
    images = predictor.preprocess(PIXELS)[None]
    tokens = model.encode(model.embed(images), model.grid_of(images))[0].detach()
    for query, to in ((None, tokens[0]), ((2, 1), tokens[2 + 11])):
        wanted = [float(t @ to / t.norm() / to.norm()) for t in tokens[2:]]
        close(explain(predictor, PIXELS, "similarity", query=query).grid.ravel(), wanted)


def test_principal_components_are_those_of_the_covariance():
    model = vit()
    predictor = predictor_of(model)
    patches = model.features(predictor.preprocess(PIXELS)[None])[-1][0].flatten(0, 1).detach().double().numpy()
    values, directions = np.linalg.eigh(np.cov(patches.T))
    found = explain(predictor, PIXELS, "pca")
    assert found.colours.shape == (3, 5, 3)
    assert found.colours.min() == 0
    assert found.colours.max() == 1
    for i in range(3):
        scores = patches @ directions[:, -1 - i]
        assert abs(np.corrcoef(scores, found.colours[..., i].ravel())[0, 1]) == pytest.approx(1, abs=1e-5)
    assert values[-1] > values[-2]


def test_attention_is_that_of_transformers(tmp_path):
    name = "hf_vit_small"
    model = open_model(reference.transformers_folder(name, tmp_path / "theirs")).model.eval()
    answers, images = reference.answers(name), reference.images(name)
    images = images / images.abs().max()
    shown = visualize_attention(model, images[0], 0, 1)
    with torch.no_grad():
        _, attention = model.forward_with_attention(images)
    np.testing.assert_allclose(shown.grid, attention[0][0, 1, 0, 1:].reshape(4, 4), atol=1e-5)
    assert {"attention_first", "attention_last"} <= set(answers)
    predictor, image = predictor_of(model, (64, 64)), (reference.images(name)[1] + 1) * 127.5
    seen = attention_maps(predictor, image)
    for key, layer in (("attention_first", 0), ("attention_last", -1)):
        theirs = np.asarray(answers[key])[1]
        np.testing.assert_allclose(seen.layers[layer], theirs, atol=1e-5)
        np.testing.assert_allclose(
            explain(predictor, image, layer=layer).grid, theirs.mean(0)[0, 1:].reshape(4, 4), atol=1e-5
        )
