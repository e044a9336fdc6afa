from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import transformers
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from littune.towers.image.from_hf import HFTrunk
from littune.towers.image.from_timm import TimmTrunk
from littune.towers.image.preprocess import Preprocess
from littune.towers.image.sources import load_image_tower
from littune.towers.image.tower import ImageTower
from littune.towers.image.trained import TrainedImageTower

CONVOLUTIONAL = ["test_resnet", "test_efficientnet", "test_convnext"]


def preprocess(size: int) -> Preprocess:
    return Preprocess(size=size, resize=size, mean=(0.5, 0.4, 0.3), std=(0.5, 0.6, 0.7))


def timm_tower(name: str, pooling: str = "own", **options: object) -> ImageTower:
    torch.manual_seed(0)
    model = timm.create_model(name, **options)
    for module in model.modules():  # statistics and scales that tell
        if isinstance(module, _BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    trunk = TimmTrunk(model, name)
    return ImageTower(spec=f"timm:{name}", trunk=trunk, preprocess=preprocess(160), pooling=pooling).to(
        "cpu", "float32"
    )


def hf_tower(pooling: str = "own", **options: object) -> ImageTower:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    model = transformers.ViTModel(transformers.ViTConfig(**sizes, image_size=32, patch_size=8, **options))
    trunk = HFTrunk(model, "vit", has_pooler=True)
    return ImageTower(spec="hf:tiny", trunk=trunk, preprocess=preprocess(32), pooling=pooling).to("cpu", "float32")


def pixels(tower: ImageTower | TrainedImageTower, count: int = 3) -> Tensor:
    shape = (count, 3, tower.preprocess.size, tower.preprocess.size)
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(count))


def step(trained: TrainedImageTower) -> None:
    """One step of descent on something."""
    trained(pixels(trained)).square().mean().backward()
    with torch.no_grad():
        for parameter in trained.parameters():
            if parameter.grad is not None:
                parameter -= 0.005 * parameter.grad.sign()
    trained.zero_grad()


def statistics(trained: TrainedImageTower) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trained.state_dict().items() if "running_" in name}


MAKERS: list[Callable[[], ImageTower]] = [
    lambda: timm_tower("test_vit"),
    lambda: timm_tower("test_vit", "cls+mean"),
    lambda: timm_tower("test_resnet", "mean"),
    *(lambda name=name: timm_tower(name) for name in CONVOLUTIONAL),
    lambda: hf_tower(),
    lambda: hf_tower("cls"),
]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("mode", [True, False])
def test_before_the_first_step_it_says_what_the_tower_says(make: Callable[[], ImageTower], mode: bool) -> None:
    tower = make()
    trained = TrainedImageTower(tower, from_scratch=False).train(mode)
    embeddings = trained(pixels(tower))
    assert embeddings.requires_grad and embeddings.dtype == torch.float32
    assert (trained.dim, trained.spec, trained.pooling) == (tower.dim, tower.spec, tower.pooling)
    torch.testing.assert_close(embeddings.detach(), tower.encode(pixels(tower)), rtol=1e-3, atol=1e-4)
    assert trained.locked().identity == tower.identity


@pytest.mark.parametrize("make", MAKERS)
def test_the_locked_tower_says_what_the_trained_one_has_learnt(make: Callable[[], ImageTower]) -> None:
    tower = make()
    before = tower.encode(pixels(tower))
    trained = TrainedImageTower(tower, from_scratch=False)
    step(trained)
    locked = trained.locked()
    with torch.no_grad():
        torch.testing.assert_close(locked.encode(pixels(tower)), trained(pixels(tower)), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(locked.encode(pixels(tower)), before, rtol=1e-2, atol=1e-3)
    assert locked.identity.weights != tower.identity.weights and locked.spec == tower.spec
    step(trained)
    assert trained.locked().identity != locked.identity
    # Neither the tower that it began as nor the locked one is touched, and both stay locked.
    assert torch.equal(tower.encode(pixels(tower)), before)
    assert not any(p.requires_grad for t in (tower, locked) for p in t.module.parameters())
    assert any(p.requires_grad for p in trained.parameters())


def test_the_gradients_are_those_of_the_model() -> None:
    tower = timm_tower("test_vit")
    trained = TrainedImageTower(tower, from_scratch=False)
    trained(pixels(tower)).square().sum().backward()
    model = tower.module.requires_grad_()
    images = tower.preprocess.normalize(pixels(tower))
    model.forward_head(model.forward_features(images), pre_logits=True).square().sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    ours = {name.removeprefix("trunk.model."): p.grad for name, p in trained.named_parameters() if p.requires_grad}
    assert ours.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-4 * float(gradient.abs().max()))


@pytest.mark.parametrize("make", MAKERS)
def test_what_is_trained_is_what_an_embedding_hangs_on(make: Callable[[], ImageTower]) -> None:
    trained = TrainedImageTower(make(), from_scratch=False)
    trained(pixels(trained)).square().sum().backward()
    for name, parameter in trained.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name
    assert not any(1000 in parameter.shape for parameter in trained.parameters()), "the classifier is gone"


def test_a_pooler_that_is_passed_by_is_not_trained() -> None:
    def trained(pooling: str) -> set[str]:
        tower = TrainedImageTower(hf_tower(pooling), from_scratch=False)
        return {name for name, parameter in tower.named_parameters() if parameter.requires_grad}

    pooler = {"trunk.model.pooler.dense.weight", "trunk.model.pooler.dense.bias"}
    assert trained("own") == trained("cls") | pooler and not trained("cls") & pooler


def test_the_classifier_is_gone_and_the_tower_is_built_again_without(tmp_path: Path) -> None:
    for name in ("test_vit", *CONVOLUTIONAL):
        tower = timm_tower(name)
        trained = TrainedImageTower(tower, from_scratch=False)
        step(trained)
        locked = trained.locked()
        assert tower.classifier is not None and locked.classifier is None
        locked.save_weights(tmp_path / "image_tower.safetensors")
        again = load_image_tower(tower.spec, weights=tmp_path / "image_tower.safetensors", precision="float32")
        assert again.identity == locked.identity and again.classifier is None
        assert torch.equal(again.encode(pixels(tower)), locked.encode(pixels(tower)))


DROPPING: list[Callable[[], ImageTower]] = [
    lambda: timm_tower("test_vit", drop_rate=0.5, proj_drop_rate=0.5, attn_drop_rate=0.5, drop_path_rate=0.5),
    lambda: timm_tower("test_resnet", drop_rate=0.5, drop_path_rate=0.5),
    lambda: hf_tower(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5),
]


@pytest.mark.parametrize("make", DROPPING)
@pytest.mark.parametrize("from_scratch", [False, True])
def test_two_passes_agree(make: Callable[[], ImageTower], from_scratch: bool) -> None:
    trained = TrainedImageTower(make(), from_scratch=from_scratch).train()
    assert trained.training
    with torch.no_grad():
        first = trained(pixels(trained))
    second = trained(pixels(trained))
    torch.testing.assert_close(first, second.detach(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
def test_pre_trained_statistics_stay_and_the_scales_learn(name: str) -> None:
    trained = TrainedImageTower(timm_tower(name), from_scratch=False).train()
    before = statistics(trained)
    scales = [m.weight.clone() for m in trained.modules() if isinstance(m, _BatchNorm)]
    step(trained)
    after = statistics(trained)
    assert before and all(torch.equal(before[name], after[name]) for name in before)
    norms = [m for m in trained.modules() if isinstance(m, _BatchNorm)]
    assert all(not torch.equal(scale, norm.weight) for scale, norm in zip(scales, norms, strict=True))
    # An image's embedding does not hang on its micro-batch.
    alone, among = trained(pixels(trained)[:1]), trained(pixels(trained))[:1]
    torch.testing.assert_close(alone, among, rtol=1e-4, atol=1e-5)


class Plain(nn.Module):
    """A convolution and a batch normalisation, whose output is known by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4, momentum=0.25)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.convolution(images)).amax(dim=(2, 3))


@pytest.fixture
def from_scratch() -> TrainedImageTower:
    torch.manual_seed(0)
    tower = ImageTower.from_module(Plain(), preprocess=preprocess(6), name="plain")
    return TrainedImageTower(tower, from_scratch=True)


def places(trained: TrainedImageTower) -> Tensor:
    """What the batch normalisation of ``Plain`` sees, a row a place."""
    convolution = trained.trunk.model.convolution
    images = trained.preprocess.normalize(pixels(trained))
    return convolution(images).detach().permute(0, 2, 3, 1).flatten(0, 2)


def test_from_scratch_a_micro_batch_is_normalised_by_itself(from_scratch: TrainedImageTower) -> None:
    rows = places(from_scratch)
    normalised = (rows - rows.mean(dim=0)) / (rows.var(dim=0, unbiased=False) + 1e-5).sqrt()
    expected = normalised.view(3, -1, 4).amax(dim=1)
    torch.testing.assert_close(from_scratch.train()(pixels(from_scratch)).detach(), expected, rtol=1e-4, atol=1e-5)


def test_running_statistics_follow_the_passes_with_a_graph_alone(from_scratch: TrainedImageTower) -> None:
    before, norm = statistics(from_scratch), from_scratch.train().trunk.model.norm
    with torch.no_grad():
        from_scratch(pixels(from_scratch))
    assert all(torch.equal(value, before[name]) for name, value in statistics(from_scratch).items())
    rows = places(from_scratch)
    from_scratch(pixels(from_scratch))
    torch.testing.assert_close(norm.running_mean, 0.25 * rows.mean(dim=0))
    torch.testing.assert_close(norm.running_var, 0.75 + 0.25 * rows.var(dim=0))
    assert norm.num_batches_tracked == 1


def test_a_tower_from_scratch_is_evaluated_and_locked_with_its_running_statistics(
    from_scratch: TrainedImageTower,
) -> None:
    norm = from_scratch.train().trunk.model.norm
    for _ in range(5):
        step(from_scratch)
    rows = places(from_scratch)
    normalised = (rows - norm.running_mean) / (norm.running_var + 1e-5).sqrt()
    expected = (normalised * norm.weight + norm.bias).view(3, -1, 4).amax(dim=1).detach()
    before = statistics(from_scratch)
    torch.testing.assert_close(from_scratch.locked().encode(pixels(from_scratch)), expected, rtol=1e-4, atol=1e-5)
    assert norm.training, "locking a copy leaves it as it is"
    torch.testing.assert_close(from_scratch.eval()(pixels(from_scratch)).detach(), expected, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in statistics(from_scratch).items())


def test_making_and_locking_leave_no_trace(from_scratch: TrainedImageTower) -> None:
    assert not from_scratch.training and from_scratch.trunk.model.norm.num_batches_tracked == 0
    assert all(parameter.grad is None for parameter in from_scratch.parameters())
    identity = from_scratch.locked().identity
    from_scratch.train().locked()
    assert from_scratch.locked().identity == identity


def test_autocast_is_the_callers_and_the_embedding_is_float32() -> None:
    trained = TrainedImageTower(hf_tower(), from_scratch=False)
    exact = trained(pixels(trained))
    with torch.autocast("cpu", torch.bfloat16):
        rough = trained(pixels(trained))
    assert rough.dtype == torch.float32 and not torch.equal(exact, rough)
    assert torch.cosine_similarity(exact, rough).min() > 0.99


def test_a_locked_tower_takes_over_the_precision() -> None:
    tower = timm_tower("test_vit").to("cpu", "bfloat16")
    trained = TrainedImageTower(tower, from_scratch=False)
    assert trained.locked().precision == "bfloat16" and str(trained.device) == "cpu"


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_on_a_gpu(name: str) -> None:
    tower = timm_tower(name).to("cuda", "float32")
    trained = TrainedImageTower(tower, from_scratch=True).train()
    assert trained.device.type == "cuda"
    step(trained)
    locked = trained.locked()
    assert locked.device.type == "cuda"
    with torch.no_grad():
        torch.testing.assert_close(
            trained.eval()(pixels(tower)).cpu(), locked.encode(pixels(tower)), rtol=1e-2, atol=1e-2
        )
