"""Captions of domains and labels, on which the two towers of the encoder are trained.

The data have about 200 labels. `SUBJECTS` adds a few dozen words for each domain, and the word vectors connect both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

# A label's caption; `{}` is the label.
LABEL_TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "portraits": ("a {} of a {subject}", "{} of a {subject}", "a portrait, {}", "{}, face of a {subject}"),
    "landscapes": ("a photograph of a {} landscape", "{}", "a view of the {}", "{} in nature", "a landscape with {}"),
    "abstract": ("a texture of {}", "{} texture", "{} surface, close up", "a pattern of {}", "a {} material"),
    "general": ("a photograph of a {}", "a {}", "{}", "a picture of a {}", "one {} on a plain background"),
}

PLAIN_CAPTIONS: Mapping[str, str] = {
    "portraits": "a portrait of a person",
    "landscapes": "a photograph of a landscape",
    "abstract": "an abstract texture",
    "general": "a photograph of an object",
}

# A domain's caption; `{subject}` is one of the words below.
DOMAIN_TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "portraits": ("a portrait of a {subject}", "face of a {subject}", "a photograph of a {subject}", "{subject}"),
    "landscapes": ("a landscape with a {subject}", "a view of the {subject}", "{subject} in nature", "the {subject}"),
    "abstract": ("a texture of {subject}", "{subject} pattern", "a {subject} surface", "abstract {subject}"),
    "general": ("a photograph of a {subject}", "a {subject}", "a picture of a {subject}", "{subject}"),
}


def _listed(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


SUBJECTS: Mapping[str, tuple[str, ...]] = {
    "portraits": _listed(
        """
        man, woman, person, human, boy, girl, child, baby, gentleman, lady, father, mother, son, daughter, husband,
        wife, actor, actress, singer, president, minister, king, princess, general, officer, doctor, nurse, teacher,
        student, farmer, sailor, lawyer, scientist, writer, face, head, hair, beard, eyes, smile, lips, glasses,
        hat, uniform, suit, portrait, model, friend, neighbour, adult, youth, old man, young lady
        """
    ),
    "landscapes": _listed(
        """
        landscape, scenery, nature, mountain, hill, valley, canyon, sea, ocean, lake, river, stream, pond, shore,
        beach, bay, island, coast, forest, trees, meadow, grassland, field, countryside, desert, dunes, swamp,
        tundra, ice, glacier, snow, summit, volcano, horizon, sky, clouds, sun, sunset, sunrise, dawn, dusk, fog,
        mist, rain, storm, rainbow, waterfall, cave, rocks and water, wilderness, park, winter, summer
        """
    ),
    "abstract": _listed(
        """
        texture, pattern, material, surface, stripes, dots, lines, grid, circles, triangles, shapes, geometry,
        ornament, tiling, mosaic, weave, cloth, cotton, silk, linen, denim, leather, wool, carpet, wood, timber,
        stone, granite, marble, slate, brick, bricks, concrete, cement, asphalt, plaster, paint, rust, steel, iron,
        copper, aluminium, plastic, rubber, glass, paper, cardboard, sand, gravel, soil, moss, tile, floor, wall,
        ceiling, roof, pavement, colours, background, wallpaper
        """
    ),
    "general": _listed(
        """
        object, thing, animal, dog, cat, horse, cow, sheep, bird, eagle, fish, shark, insect, bee, spider, snake,
        frog, lion, tiger, bear, monkey, mouse, fruit, vegetable, cherry, grape, bread, cheese, egg, meat, sandwich,
        cake, drink, bottle, glass of water, wine, box, can, car, truck, bus, train, bicycle, boat, ship, plane,
        rocket, table, sofa, bed, desk, clock, phone, computer, television, radio, book, pen, tool, hammer, knife,
        gun, guitar, violin, trumpet, drum, ball, toy, robot, doll, shoe, shirt, bag, key, telephone, candle,
        flower, rose, plant, statue, coin, machine, engine
        """
    ),
}


def label_caption(domain: str, label: str, rng: np.random.Generator | None = None) -> str:
    """A caption of a label, e.g. ("landscapes", "sea") -> "a photograph of a sea landscape".

    Args:
        domain: The domain of the label; an unknown domain is worded like `general`.
        label: The label.
        rng: Chooses the wording; None: the first wording.
    """
    return _fill(LABEL_TEMPLATES.get(domain, LABEL_TEMPLATES["general"]), domain, label, rng)


def domain_caption(domain: str, rng: np.random.Generator | None = None) -> str:
    """A caption of a domain, e.g. "portraits" -> "a portrait of a man".

    Args:
        domain: One of `SUBJECTS`.
        rng: Chooses wording and subject; None: the first of each.
    """
    return _fill(DOMAIN_TEMPLATES[domain], domain, "", rng)


def plain_caption(domain: str, label: str | None) -> str:
    """The caption of a run without a prompt.

    Args:
        domain: The domain; an unknown domain gives "a photograph of <domain>".
        label: A label of the domain, or None for a caption of the whole domain.
    """
    if label is not None:
        return label_caption(domain, label)
    return PLAIN_CAPTIONS.get(domain, f"a photograph of {domain}")


def _fill(templates: Sequence[str], domain: str, label: str, rng: np.random.Generator | None) -> str:
    subjects = SUBJECTS.get(domain, ("thing",))
    template = templates[0] if rng is None else templates[int(rng.integers(len(templates)))]
    subject = subjects[0] if rng is None else subjects[int(rng.integers(len(subjects)))]
    return template.format(label, subject=subject)
