"""Hold every Model to its promise: pure, seeded, saved whole, picklable, firm with strangers."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

from alphapulse.domain.errors import CheckpointError, ShapeMismatch
from alphapulse.domain.inference import Action, Example, Prediction
from alphapulse.domain.inputs import INPUT_SPEC, ModelInput
from alphapulse.interfaces import LearnReport, Model
from tests.contracts.factories import ModelSubject, factory_of
from tests.contracts.finding import assert_documented, implementations
from tests.contracts.inputs import an_input, same

EXPECTED = {"CNN", "Orchestrator", "RL"}


def stored(model: Model, directory: Path) -> str:
    """Return the id under which the model's present state is saved."""
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        return model.save(Path(folder) / "checkpoint")


def check_docstrings(subject: ModelSubject, directory: Path) -> None:
    assert_documented(subject.kind)


def check_prediction_is_sound(subject: ModelSubject, directory: Path) -> None:
    input = an_input()
    said = subject.make().predict(input, upstream=subject.upstream)

    assert (said.symbol, said.event_ns) == (input.symbol, input.event_ns)
    assert said.model == subject.kind.name
    assert abs(said.p_buy + said.p_sell + said.p_hold - 1) < 1e-6
    assert min(said.p_buy, said.p_sell, said.p_hold) >= -1e-9
    assert 0 <= said.confidence <= 1
    assert np.isfinite(said.utility_r)
    assert said.hidden_H.dtype == np.float32
    assert said.hidden_H.ndim == 1
    assert np.isfinite(said.hidden_H).all()


def check_predict_changes_nothing(subject: ModelSubject, directory: Path) -> None:
    model, input = subject.make(), an_input()
    upstream = copy.deepcopy(dict(subject.upstream))
    before, fed = stored(model, directory), input.content_hash

    first = model.predict(input, upstream=upstream)
    for step in (1, 2):
        model.predict(an_input(step), upstream=upstream)
    again = model.predict(input, upstream=upstream)

    assert same(first, again), "the same input gave another answer"
    assert stored(model, directory) == before, "predict changed what is saved"
    assert replace(input).content_hash == fed, "input was changed"
    assert all(same(upstream[name], subject.upstream[name]) for name in subject.upstream)


def check_input_may_be_read_only(subject: ModelSubject, directory: Path) -> None:
    input = an_input()
    for name in input.spec.shapes():
        getattr(input, name).setflags(write=False)  # as Ray hands arrays out

    subject.make().predict(input, upstream=subject.upstream)


def check_same_seed_same_answer(subject: ModelSubject, directory: Path) -> None:
    one, other = subject.make(), subject.make()

    assert one.version == other.version
    assert same(*(m.predict(an_input(), upstream=subject.upstream) for m in (one, other)))


def check_save_load_same_prediction(subject: ModelSubject, directory: Path) -> None:
    model = subject.make()
    saved = model.save(directory / "saved")
    loaded = subject.kind.load(directory / "saved")

    assert saved == model.version == loaded.version
    assert same(*(m.predict(an_input(), upstream=subject.upstream) for m in (model, loaded)))


def check_nothing_saved_is_pickled(subject: ModelSubject, directory: Path) -> None:
    subject.make().save(directory / "plain")

    files = sorted(path.suffix for path in (directory / "plain").rglob("*") if path.is_file())
    assert set(files) <= {".safetensors", ".json"}, f"expected safetensors and JSON, was {files}"


def check_missing_checkpoint_is_refused(subject: ModelSubject, directory: Path) -> None:
    assert _error_of(lambda: subject.kind.load(directory / "nowhere")) is CheckpointError


def check_damaged_checkpoint_is_refused(subject: ModelSubject, directory: Path) -> None:
    subject.make().save(directory / "damaged")
    for path in sorted((directory / "damaged").rglob("*")):
        if path.is_file():
            whole = path.read_bytes()
            path.write_bytes(whole[: len(whole) // 2])
            error = _error_of(lambda: subject.kind.load(directory / "damaged"))
            path.write_bytes(whole)
            assert error is CheckpointError, f"half of {path.name} gave {error}"


def check_pickles(subject: ModelSubject, directory: Path) -> None:
    model = subject.make()
    back = pickle.loads(pickle.dumps(model))

    assert same(*(m.predict(an_input(), upstream=subject.upstream) for m in (model, back)))


def check_foreign_shape_is_refused(subject: ModelSubject, directory: Path) -> None:
    foreign = an_input(spec=replace(INPUT_SPEC, num_rows=INPUT_SPEC.num_rows - 1))
    model = subject.make()

    assert _error_of(lambda: model.predict(foreign, upstream=subject.upstream)) is ShapeMismatch


def check_missing_upstream_is_refused(subject: ModelSubject, directory: Path) -> None:
    model = subject.make()
    if subject.upstream:
        assert _error_of(lambda: model.predict(an_input(), upstream={})) is KeyError


def check_same_examples_same_weights(subject: ModelSubject, directory: Path) -> None:
    one, other = subject.make(), subject.make()
    before = one.version

    report = one.learn(subject.examples)
    other.learn(subject.examples)

    assert one.version == other.version, "the same examples gave other weights"
    assert one.version != before, "learning changed nothing, or the version did not follow"
    assert report.num_examples > 0
    assert set(report.held_out_loss) == set(report.base_rate_loss) != set()


def _error_of(call: Callable[[], object]) -> type[Exception] | None:
    try:
        call()
    except Exception as error:  # the check names what came instead
        return type(error)
    return None


class Scale:
    """What an example knows: one weight and the number of times it was asked."""

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.asked = 0


class ExampleModel(Model):
    """The smallest model that keeps the promise: one weight on the newest bar."""

    name = "example"
    spec = INPUT_SPEC

    def __init__(self, weight: float = 0.5) -> None:
        self.state = Scale(weight)

    @property
    def version(self) -> str:
        """Return a hash of the weight."""
        return hashlib.sha256(self._text().encode()).hexdigest()

    def _text(self) -> str:
        return json.dumps({"weight": self.state.weight})

    def predict(self, input: ModelInput, *, upstream: Mapping[str, Prediction]) -> Prediction:
        """Hold, with a hidden state of one weighted cell."""
        if input.spec != self.spec:
            raise ShapeMismatch(f"example: expected {self.spec}, was {input.spec}; build another")
        hidden_H = input.bars_SFTC[0, 0, -1, :1] * np.float32(self.state.weight)
        action, share = Action.HOLD, 1 / 3
        head = (self.name, self.version, input.symbol, input.event_ns, action)
        return Prediction(*head, share, share, share, 0.5, 0.0, hidden_H)

    def learn(self, examples: Sequence[Example]) -> LearnReport:
        """Move the weight by the mean target."""
        self.state.weight += float(np.mean([e.targets["move"] for e in examples]))
        return LearnReport(len(examples), {"move": 1.0}, {"move": 1.0})

    def save(self, directory: Path) -> str:
        """Write the weight as JSON, with its hash."""
        directory.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"id": self.version, "layout": self._text()})
        (directory / "layout.json").write_text(text)
        return self.version

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Return the saved one."""
        try:
            kept = json.loads((directory / "layout.json").read_text())
            return cls(json.loads(kept["layout"])["weight"])
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"{directory}: expected layout.json, was {error!r}") from None


class Forgetful(ExampleModel):
    """Breaks the promise: each answer moves the weight."""

    def predict(self, input: ModelInput, *, upstream: Mapping[str, Prediction]) -> Prediction:
        """Answer, and change."""
        self.state.weight += 0.1
        return super().predict(input, upstream=upstream)


class Greedy(ExampleModel):
    """Breaks the promise: writes into its input, and never looks at its axes."""

    def predict(self, input: ModelInput, *, upstream: Mapping[str, Prediction]) -> Prediction:
        """Overwrite a cell, then answer."""
        input.bars_SFTC[0, 0, 0, 0] += 1
        return super().predict(replace(an_input()), upstream=upstream)


class Unseeded(ExampleModel):
    """Breaks the promise: no two are alike, and none is as it was saved."""

    count = 0

    def __init__(self, weight: float = 0.5) -> None:
        Unseeded.count += 1
        super().__init__(weight + Unseeded.count)


class Sealed(ExampleModel):
    """Breaks the promise: holds what cannot cross a process border, and saves a pickle."""

    def __init__(self, weight: float = 0.5) -> None:
        super().__init__(weight)
        self.secret = lambda: None

    def save(self, directory: Path) -> str:
        """Write a pickle beside."""
        saved = super().save(directory)
        (directory / "weights.pkl").write_bytes(b"")
        return saved

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Return a fresh one whatever is there."""
        return cls()


class Boastful(ExampleModel):
    """Breaks the promise: more sure than certain, deaf to examples."""

    def predict(self, input: ModelInput, *, upstream: Mapping[str, Prediction]) -> Prediction:
        """Answer with a confidence of two."""
        return replace(super().predict(input, upstream=upstream), confidence=2.0)

    def learn(self, examples: Sequence[Example]) -> LearnReport:
        """Learn nothing."""
        return LearnReport(len(examples), {"move": 1.0}, {"move": 1.0})


class Undocumented(ExampleModel):
    __doc__ = None


class Careless(ExampleModel):
    """Breaks the promise: needs the cnn and guesses without it."""


def example(
    kind: type[ExampleModel], upstream: Mapping[str, Prediction] | None = None
) -> ModelSubject:
    targets = {"move": np.array([0.25], np.float32)}
    examples = [Example(an_input(step), {}, targets) for step in range(3)]
    return ModelSubject(kind, kind, upstream or {}, examples)


CHECKS = [value for name, value in sorted(globals().items()) if name.startswith("check_")]
BROKEN = [
    (check_docstrings, Undocumented),
    (check_prediction_is_sound, Boastful),
    (check_predict_changes_nothing, Forgetful),
    (check_predict_changes_nothing, Greedy),
    (check_input_may_be_read_only, Greedy),
    (check_same_seed_same_answer, Unseeded),
    (check_save_load_same_prediction, Unseeded),
    (check_nothing_saved_is_pickled, Sealed),
    (check_missing_checkpoint_is_refused, Sealed),
    (check_damaged_checkpoint_is_refused, Sealed),
    (check_pickles, Sealed),
    (check_foreign_shape_is_refused, Greedy),
    (check_same_examples_same_weights, Boastful),
    (check_missing_upstream_is_refused, Careless),
]


@pytest.fixture(params=[*implementations(Model).values(), ExampleModel], ids=lambda k: k.__name__)
def subject(request: pytest.FixtureRequest) -> Any:
    return (
        example(ExampleModel)
        if request.param is ExampleModel
        else factory_of(request.param)(request)
    )


def test_suite_holds_every_model_there_is() -> None:
    assert set(implementations(Model)) == EXPECTED


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_model_keeps_its_promise(
    check: Callable[[ModelSubject, Path], None], subject: ModelSubject, tmp_path: Path
) -> None:
    check(subject, tmp_path)


@pytest.mark.parametrize(("check", "kind"), BROKEN, ids=lambda x: x.__name__)
def test_check_sees_a_broken_promise(
    check: Callable[[ModelSubject, Path], None], kind: type[ExampleModel], tmp_path: Path
) -> None:
    heard = ExampleModel().predict(an_input(), upstream={}) if kind is Careless else None

    with pytest.raises((AssertionError, ValueError, AttributeError, pickle.PicklingError)):
        check(example(kind, {"cnn": heard} if heard else None), tmp_path)


def test_every_check_is_seen_to_fail() -> None:
    assert {check.__name__ for check, _ in BROKEN} == {check.__name__ for check in CHECKS}
