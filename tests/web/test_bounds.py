"""What the page lets through, and what it stands for on the command line."""

from __future__ import annotations

import shlex
from dataclasses import astuple, replace

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from adaptive_diffusion.cli.arguments import for_hydra
from adaptive_diffusion.errors import UserError
from adaptive_diffusion.program import command, conf
from adaptive_diffusion.web.app import check_access, common_settings, main
from adaptive_diffusion.web.bounds import LONGEST_PROMPT, STORED, STORING, Offer, Offers, Wish
from adaptive_diffusion.web.restoring import wish_of

OFFERS = Offers(
    models=(
        Offer("shipped", (), {"landscapes": ("sunrise", "forest"), "portraits": ()}),
        Offer("mine", ("model=checkpoint", "model.path=/models/mine.safetensors"), {}),
    ),
    schedulers=("adaptive", "ddim"),
    guidance=("default", "constant", "interval"),
    common=("tracking=none",),
    grids=("own", "quadratic"),
)
WISH = Wish(model="shipped", domain="landscapes")


def test_a_seed_that_is_no_number_is_told_of():
    with pytest.raises(UserError, match="seed must be a whole number, and its field holds none"):
        Wish.of(astuple(replace(WISH, seed=None)))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"model": "/etc/passwd"}, "model must be one of shipped, mine"),
        ({"prompt": "x" * (LONGEST_PROMPT + 1)}, "at most"),
        ({"prompt": "two\nlines"}, "one line"),
        ({"prompt": "  "}, "prompt must hold more than spaces"),
        ({"domain": "landscapes,portraits"}, "domain must be one of"),
        ({"domain": ""}, "domain must be one of"),
        ({"label": "butterfly"}, "label must be one of none, sunrise, forest"),
        ({"scheduler": "ddim num_samples=9"}, "scheduler must be one of"),
        ({"steps": 0}, "steps must be a whole number"),
        ({"steps": 101}, "between 1 and 100"),
        ({"steps": None}, "steps must be"),
        ({"grid": "karras"}, "grid must be one of own, quadratic"),
        ({"guidance": "../x"}, "guidance must be one of"),
        ({"weight": float("nan")}, "weight must be"),
        ({"weight": 31}, "at most 30"),
        ({"images": 17}, "images must be"),
        ({"images": True}, "images must be"),
        ({"seed": -1}, "seed must be"),
        ({"seed": 2.5}, "seed must be"),
        ({"size": 4096}, "size must be one of"),
    ],
)
def test_values_out_of_bounds_are_refused_with_a_sentence(changed, told):
    with pytest.raises(UserError, match=told) as refused:
        replace(WISH, **changed).checked(OFFERS)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("given", "weight"), [("", None), (None, None), ("2.5", 2.5), (3, 3.0)])
def test_an_empty_weight_is_the_models_own(given, weight):
    assert Wish.of(astuple(replace(WISH, weight=given))).weight == weight
    with pytest.raises(UserError, match="weight must be a number"):
        Wish.of(astuple(replace(WISH, weight="much")))


@pytest.mark.parametrize(
    "wish",
    [
        WISH,
        replace(WISH, label="none", scheduler="ddim", steps=50, seed=2**32 - 1, images=16),
        replace(WISH, prompt="a lake, at dawn: it's ${paths.root} \\ 'so'", weight=2.5, guidance="interval", size=256),
        replace(WISH, prompt=r"\${oc.env:HOME}"),
        replace(WISH, prompt=r"\\${oc.env:HOME} \\\${x}"),
        replace(WISH, prompt="null", weight=0.0),
        replace(WISH, stored=True, steps=6, grid="quadratic"),
        Wish(model="mine"),
    ],
)
def test_the_command_line_and_the_image_bring_the_wish_back(wish):
    settings = wish.checked(OFFERS).settings(OFFERS)
    typed = shlex.split(f"{command('sample')} {shlex.join(settings)}")
    assert for_hydra(typed[-len(settings) :]) == settings

    found, left_out = wish_of(settings, OFFERS)
    # a prompt chooses the domain, so that no command line has both
    assert replace(found, domain="", label="") == replace(wish, domain="", label="")
    assert left_out == []


@pytest.mark.parametrize("prompt", ["${oc.env:HOME}", r"\${oc.env:HOME}", r"\\${oc.env:HOME}", r"\\\${oc.env:HOME}"])
def test_a_prompt_reads_no_variable_of_the_environment(prompt):
    settings = replace(WISH, prompt=prompt).checked(OFFERS).settings(OFFERS)
    given = next(each for each in settings if each.startswith("prompt="))
    assert OmegaConf.create({"prompt": OverridesParser.create().parse_override(given).value()}).prompt == prompt


def test_a_model_is_known_by_a_relative_path(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    offers = replace(OFFERS, models=(Offer("mine", ("model=checkpoint", f"model.path={tmp_path}/a.safetensors"), {}),))
    assert wish_of(["model.path=./a.safetensors", "model=checkpoint"], offers)[0].model == "mine"
    with pytest.raises(UserError, match="not offered"):
        wish_of(["model.path=b/a.safetensors", "model=checkpoint"], offers)


def test_a_domain_of_a_model_of_your_own_is_drawn_by_its_name_and_comes_back():
    offers = replace(OFFERS, models=(Offer("mine", OFFERS.models[1].settings, {"shapes": ["round"]}),))
    wish = Wish(model="mine", domain="shapes", label="round").checked(offers)
    settings = wish.settings(offers)
    assert {"domain=general", "domain.name=shapes"} <= set(settings)
    for given in (settings, settings[::-1]):
        assert wish_of(given, offers) == (wish, [])
    described = [*offers.models[0].settings, "domain.name=shapes", "domain.description=shapes", "label=round"]
    assert wish_of(described, offers) == (replace(wish, images=16), [])  # what a training says to draw with


def test_what_has_no_control_is_left_out_and_named():
    other = ["strength=0.5", "scheduler.first_evaluation=shared"]
    wish, left_out = wish_of(["domain=portraits", "num_steps=7", *other], OFFERS)
    assert (wish.domain, wish.steps, wish.stored) == ("portraits", 7, False)
    assert left_out == other


def test_a_stored_first_evaluation_is_asked_of_the_schedulers_that_have_the_setting():
    with_it = {path.stem for path in (conf() / "scheduler").glob("*.yaml") if "first_evaluation:" in path.read_text()}
    assert with_it == set(STORING)
    asked = [replace(WISH, stored=True, scheduler=name).settings(OFFERS) for name in OFFERS.schedulers]
    assert [STORED in settings for settings in asked] == [True, False]


def test_an_image_of_the_command_line_brings_back_what_sample_py_draws_unless_it_is_told():
    assert wish_of(["domain=portraits"], OFFERS)[0].images == 16
    tuned = replace(OFFERS, schedulers=("tuned",))
    assert wish_of(["scheduler=tuned"], tuned)[1] == ["the number of steps that was tuned"]
    assert wish_of(["prompt=a face", "domain=landscapes"], OFFERS)[1] == ["domain=landscapes"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["model=checkpoint", "model.path=/etc/passwd"], "not offered"),
        (["num_steps=100000"], "between 1 and 100"),
        (["num_steps=ten"], "steps must be"),
        (["seed=range(5)"], "cannot be read"),
        (["domain={a:1}"], "cannot be read"),
        (["prompt=" + "a" * 10_000], "longer than"),
    ],
)
def test_settings_of_a_strange_image_are_refused(settings, told):
    with pytest.raises(UserError, match=told):
        wish_of(settings, OFFERS)


@pytest.mark.parametrize(
    ("host", "password", "told"),
    [("0.0.0.0", None, "password"), ("192.168.1.5", None, "password"), ("127.0.0.1", "short", "at least 12")],
)
def test_other_machines_are_let_in_with_a_long_password_only(host, password, told):
    with pytest.raises(UserError, match=told):
        check_access(host, password)
    check_access("127.0.0.1", None)
    check_access(host, "a long password")


@pytest.mark.parametrize("port", ["70000", "-1"])
def test_a_port_out_of_bounds_is_refused(port):
    with pytest.raises(UserError, match="--port must be a whole number, between 0 and 65535"):
        main([f"--port={port}"])


@pytest.mark.parametrize("setting", ["num_steps=5", "model=checkpoint", "+model.path=x", "metrics=standard", "seed=1"])
def test_what_the_page_decides_cannot_be_given_at_the_start(setting):
    with pytest.raises(UserError, match="cannot be given here"):
        common_settings([setting])
    assert common_settings(["tracking=none"]) == ("tracking=none",)
