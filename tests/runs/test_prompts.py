"""A prompt chooses domain and label; whatever contradicts it gets a sentence."""

from pathlib import Path

import pytest
from tiny import configuration, tiny_model

from adaptive_diffusion.models.unet import SimpleUNet, UNetConfig
from adaptive_diffusion.runs.open_settings import settled
from adaptive_diffusion.runs.prompts import follow_prompt

MODEL_WITHOUT_CLASSES = SimpleUNet(UNetConfig(image_size=8, widths=(8,), blocks=(1,), attention_levels=()))


def test_a_prompt_fills_in_domain_and_label(tmp_path: Path) -> None:
    cfg, choice = follow_prompt(configuration("sample", tmp_path, "prompt=a butterfly"), tiny_model())
    assert choice is not None
    assert (cfg.domain.name, cfg.label) == ("general", "butterfly")
    assert (choice.domain, choice.label) == ("general", "butterfly")


def test_a_prompt_that_looks_like_a_reference_describes_the_domain_as_it_is_written(tmp_path: Path) -> None:
    cfg, _ = follow_prompt(configuration("sample", tmp_path, r"prompt='a butterfly \${x}'"), tiny_model())
    assert cfg.domain.description == "chosen for the prompt 'a butterfly ${x}'"


def test_a_prompt_at_odds_with_the_given_domain_is_followed_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("adaptive_diffusion.runs.prompts.given", lambda name: True)
    cfg, _ = follow_prompt(configuration("sample", tmp_path, "prompt=a butterfly", "domain=portraits"), tiny_model())
    assert cfg.domain.name == "portraits"
    assert "hardly asks for portraits" in caplog.text


def test_a_domain_of_ones_own_is_doubted_only_where_the_prompt_names_no_label(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_model(domains=["shapes", "colours", "a", "b"], labels={"shapes": ["disc", "hexagon"]})
    assert follow_prompt(configuration("sample", tmp_path, "prompt=many hexagons tonight"), model)[0].label == "hexagon"
    assert caplog.text == ""
    follow_prompt(configuration("sample", tmp_path, "prompt=the king"), model)
    assert "the prompt names no label of shapes, so that it decides nothing" in caplog.text


def test_a_prompt_of_unknown_words_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    follow_prompt(configuration("sample", tmp_path, "prompt=xyzzy qwertz"), tiny_model())
    assert "no word of the prompt is known, so that it decides nothing: general is drawn" in caplog.text


@pytest.mark.parametrize(("prompt", "model"), [(None, MODEL_WITHOUT_CLASSES), ("a butterfly", tiny_model())])
@pytest.mark.parametrize("setting", ["domain", "domain.name"])
def test_a_domain_stands_however_the_command_line_gives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prompt: str | None, model: SimpleUNet, setting: str
) -> None:
    monkeypatch.setattr("adaptive_diffusion.runs.prompts.given", lambda name: name == setting)
    cfg = configuration("sample", tmp_path, "domain.name=portraits")
    cfg.prompt = prompt
    assert follow_prompt(cfg, model)[0].domain.name == "portraits"


def test_without_a_prompt_nothing_changes(tmp_path: Path) -> None:
    cfg = configuration("sample", tmp_path)
    assert follow_prompt(cfg, tiny_model()) == (cfg, None)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["prompt=''"], "prompt: .*"),
        (["prompt='123'"], "prompt: .*"),
        (["prompt=a butterfly", "label=apple"], "both given"),
    ],
)
def test_unfit_prompts_get_a_sentence(overrides: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        follow_prompt(configuration("sample", tmp_path, *overrides), tiny_model())


def test_a_model_without_classes_takes_no_prompt(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="trained without classes"):
        follow_prompt(configuration("sample", tmp_path, "prompt=a butterfly"), MODEL_WITHOUT_CLASSES)


@pytest.mark.parametrize(("scale", "said"), [(0, True), (0.5, False), (1, False)])
def test_guidance_that_leaves_out_what_was_asked_for_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, scale: float, said: bool
) -> None:
    cfg = configuration("sample", tmp_path, f"guidance_scale={scale}", "domain=landscapes")
    with caplog.at_level("WARNING"):
        assert settled(cfg, tiny_model()).guidance_scale == scale
    assert ("without domain and label" in caplog.text) is said
