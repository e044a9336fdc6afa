"""What decays, what rules by name do, and that what is locked has no gradient and no optimiser state."""

import pytest
import torch
from torch import nn

from littune.base.errors import InputError
from littune.tuning.optim.groups import Rule, apply_rules, parameter_groups
from littune.tuning.optim.optimizers import apply_gradients, make_optimizer


class _Tower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.positions = nn.Parameter(torch.ones(3, 4))
        self.attention = nn.MultiheadAttention(4, 2)
        self.patches = nn.Conv2d(3, 4, 2)
        self.norm = nn.LayerNorm(4)


class _Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.text = _Tower()
        self.head = nn.Linear(4, 6)
        self.log_temperature = nn.Parameter(torch.tensor(1.0))


def _names(model, parameters):
    chosen = {id(p) for p in parameters}
    return {name for name, p in model.named_parameters() if id(p) in chosen}


def _by_name(model, groups):
    """Each trained parameter's factor and start."""
    found = {id(p): (group["lr_factor"], group["start"]) for group in groups for p in group["params"]}
    return {name: found[id(p)] for name, p in model.named_parameters() if id(p) in found}


def test_only_kernels_decay():
    model = _Model()
    groups = parameter_groups(model, weight_decay=0.1)
    assert {group["weight_decay"] for group in groups} == {0.0, 0.1}
    decaying = _names(model, [p for group in groups if group["weight_decay"] for p in group["params"]])
    kernels = {"attention.in_proj_weight", "attention.out_proj.weight", "patches.weight"}
    assert decaying == {f"text.{name}" for name in kernels} | {"head.weight"}
    assert _by_name(model, groups).keys() == dict(model.named_parameters()).keys()


def test_locked_parameters_are_in_no_group():
    model = _Model()
    model.text.attention.requires_grad_(False)
    trained = _by_name(model, parameter_groups(model, weight_decay=0.1)).keys()
    assert trained == {name for name, _ in model.named_parameters() if not name.startswith("text.attention.")}


def test_a_rule_multiplies_the_factor_of_a_part():
    model = _Model()
    rules = [Rule(pattern="head.*", factor=0.5), Rule(pattern="text.norm.*", factor=0.1, start=0.25)]
    found = _by_name(model, parameter_groups(model, weight_decay=0.1, lr_factors={model.head: 20.0}, rules=rules))
    assert found["head.weight"] == found["head.bias"] == (10.0, 0.0)
    assert found["text.norm.weight"] == (0.1, 0.25)
    assert found["log_temperature"] == found["text.positions"] == (1.0, 0.0)


def test_the_last_rule_that_matches_holds():
    model = _Model()
    rules = [Rule.parse(spec) for spec in ("text.*:0", "text.norm.*:0.2", "*.bias:0.3", "head.bias:0")]
    apply_rules(model, rules)
    assert _by_name(model, parameter_groups(model, weight_decay=0.1, rules=rules)) == {
        "text.norm.weight": (0.2, 0.0),
        "text.norm.bias": (0.3, 0.0),
        "text.patches.bias": (0.3, 0.0),
        "text.attention.out_proj.bias": (0.3, 0.0),
        "head.weight": (1.0, 0.0),
        "log_temperature": (1.0, 0.0),
    }


def test_a_shared_parameter_goes_by_any_of_its_names():
    model = _Model()
    model.shared = model.text.embedding
    assert "shared.weight" not in dict(model.named_parameters())
    apply_rules(model, [Rule(pattern="shared.*", factor=0.0)])
    assert not model.text.embedding.weight.requires_grad


def test_rules_do_not_unlock():
    model = _Model()
    model.text.requires_grad_(False)
    rules = [Rule(pattern="*", factor=2.0)]
    apply_rules(model, rules)
    found = _by_name(model, parameter_groups(model, weight_decay=0.1, rules=rules))
    assert found.keys() == {"head.weight", "head.bias", "log_temperature"}


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_what_a_rule_locks_has_no_gradient_and_no_state_and_keeps_its_weights(name):
    model = _Model()
    rules = [Rule.parse("text.*:0")]
    apply_rules(model, rules)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = make_optimizer(name, parameter_groups(model, weight_decay=0.1, rules=rules), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        output = model.head(model.text.norm(model.text.positions)).square().sum() * model.log_temperature
        output.backward()
        apply_gradients(optimizer, max_norm=1.0)
    assert all(p.grad is None for p in model.text.parameters())
    trained = {"head.weight", "head.bias", "log_temperature"}
    assert _names(model, optimizer.state) == trained
    changed = {name for name, p in model.named_parameters() if not torch.equal(before[name], p.detach())}
    assert changed == trained


def test_a_rule_that_matches_nothing_names_what_is_close():
    model = _Model()
    with pytest.raises(InputError, match=r"'text.norms.\*' matches no parameter; there are text\.norm\.\w+, ") as error:
        apply_rules(model, [Rule.parse("head.*:0"), Rule.parse("text.norms.*:0")])
    assert "text.norm.weight" in str(error.value)
    assert "text.norm.bias" in str(error.value)
    assert model.head.weight.requires_grad
    with pytest.raises(InputError, match="'image.\\*' matches no parameter"):
        parameter_groups(model, weight_decay=0.0, rules=[Rule.parse("image.*:0.1")])


@pytest.mark.parametrize(
    ("spec", "rule"),
    [
        ("text.*:0", Rule(pattern="text.*", factor=0.0)),
        ("image.*:0.1:0.5", Rule(pattern="image.*", factor=0.1, start=0.5)),
        ("*[ab]?:1e-3:0", Rule(pattern="*[ab]?", factor=0.001)),
    ],
)
def test_a_rule_is_read(spec, rule):
    assert Rule.parse(spec) == rule


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("text.*", r"'text\.\*' is not spelled PATTERN:FACTOR\[:START\]"),
        (":1", "not spelled"),
        ("a:1:0.5:2", "not spelled"),
        ("a:slow", r"FACTOR 'slow' is no finite number; spell it PATTERN:FACTOR\[:START\]"),
        ("a:", "FACTOR '' is no finite number"),
        ("a:nan", "FACTOR 'nan'"),
        ("a:inf", "FACTOR 'inf'"),
        ("a:1:", "START ''"),
        ("a:-1", "FACTOR must be 0 or more"),
        ("a:1:1", "START must be a share"),
        ("a:1:-0.1", "START must be a share"),
        ("a:0:0.5", "locks for good"),
    ],
)
def test_a_rule_spelled_wrongly_is_an_error_that_shows_the_spelling(spec, message):
    with pytest.raises(InputError, match=message):
        Rule.parse(spec)
