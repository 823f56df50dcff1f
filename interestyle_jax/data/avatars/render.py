"""One avatar: its image with alpha, and the exact map of its parts.

The art comes from DiceBear (`dicebear-core`, MIT; `dicebear-styles`), drawn by `resvg`:

- `toon-head`: remix of "ToonHead" by Johan Melin, CC BY 4.0,
  https://www.figma.com/community/file/1589627891082866389
- `personas` (the held-out domain): remix of "Personas by Draftbit" by Draftbit, CC BY 4.0,
  https://personas.draftbit.com/

The map of parts is the same drawing with every part filled by one flat colour, without
anti-aliasing; shadows and lights (opacity < 0.5) are left out, so that a pixel belongs to the
topmost part that covers it.
"""

import copy
import dataclasses
import functools
import importlib.resources
import json
import xml.etree.ElementTree as ElementTree

import numpy as np
from dicebear import Avatar as DiceBearAvatar
from dicebear import Style
from jaxtyping import UInt8

from interestyle_jax.data.avatars.obstacles import FaceBox
from interestyle_jax.data.avatars.raster import rasterise
from interestyle_jax.data.avatars.variation import Draws, Geometry, draw_geometry, jitter_colour

PARTS = (
    "background",
    "rearHair",
    "hair",
    "head",
    "eyes",
    "eyebrows",
    "nose",
    "mouth",
    "beard",
    "facialHair",
    "body",
    "clothes",
)
HAIR_PARTS = ("rearHair", "hair")
FACE_PARTS = ("head", "eyes", "eyebrows", "nose", "mouth", "beard", "facialHair")

_SVG = "{http://www.w3.org/2000/svg}"
# Neighbouring parts lie this far apart in the red channel of the map of parts.
_PART_STEP = 20
_PART_LEVELS = np.full(256, 255, np.uint8)
_PART_LEVELS[np.arange(len(PARTS)) * _PART_STEP] = np.arange(len(PARTS))

ElementTree.register_namespace("", "http://www.w3.org/2000/svg")


@dataclasses.dataclass(frozen=True)
class StyleFacts:
    """How a DiceBear style is framed and coloured. Lengths are in units of the style's canvas."""

    name: str
    licence: str
    creator: str
    window: float
    centre: tuple[float, float]
    pivot: tuple[float, float]
    colours: dict[str, str]
    probabilities: dict[str, int]
    face: tuple[float, float, float, float]
    chin: float | None = None


# `face` is x, y of its middle, half its height, and the mouth's y; `colours` maps our attribute
# names to the style's; `chin` marks where an undivided head ends.
STYLES = {
    "toon-head": StyleFacts(
        name="toon-head",
        licence="CC BY 4.0",
        creator="Johan Melin",
        window=712.0,
        centre=(384.0, 362.0),
        pivot=(384.0, 440.0),
        colours={"skin": "skin", "hair": "hair", "clothes": "clothes"},
        probabilities={"beard": 35, "rearHair": 55},
        face=(384.0, 400.0, 190.0, 513.0),
    ),
    "personas": StyleFacts(
        name="personas",
        licence="CC BY 4.0",
        creator="Draftbit",
        window=53.0,
        centre=(32.0, 29.5),
        pivot=(32.0, 33.0),
        colours={
            "skin": "skin",
            "hair": "hair",
            "clothes": "clothing",
            "facial_hair": "facialHair",
        },
        probabilities={"facialHair": 30},
        face=(32.0, 31.0, 16.0, 41.0),
        chin=47.0,
    ),
}

JITTER = {
    "skin": {"hue": 0.012, "saturation": 0.12, "value": 0.10},
    "hair": {"hue": 0.03, "saturation": 0.25, "value": 0.20},
    "facial_hair": {"hue": 0.03, "saturation": 0.25, "value": 0.20},
    "clothes": {"hue": 0.05, "saturation": 0.20, "value": 0.15},
}

# Facial features move and stretch a little: factor on the size, shift in parts of the face.
FEATURE_STRETCH = {"eyes": 0.08, "mouth": 0.14, "eyebrows": 0.06, "nose": 0.10}
_FEATURE_SHIFT = {"eyes": 0.010, "mouth": 0.012, "eyebrows": 0.012, "nose": 0.008}


@dataclasses.dataclass(frozen=True)
class Drawing:
    """An avatar ready to be drawn at any size: the SVG tree, its geometry and its labels.

    `colours` holds the base colour of each attribute and how its hue, saturation and value were
    moved, `features` the width, height and shift of the parts of FEATURE_STRETCH; changes are
    shares, in [-1, 1], of the most that may be.
    """

    facts: StyleFacts
    tree: ElementTree.Element
    geometry: Geometry
    labels: dict[str, str | float]
    colours: dict[str, tuple[str, tuple[float, float, float]]]
    features: dict[str, tuple[float, float, float]]


@functools.cache
def definition(style: str) -> dict:
    """DiceBear's own description of a style: its components and colours."""
    text = importlib.resources.files("dicebear_styles").joinpath(f"{style}.json").read_text("utf-8")
    return json.loads(text)


@functools.cache
def _style(style: str) -> Style:
    return Style(definition(style))


def draw_avatar(draws: Draws, style: str, name: str) -> Drawing:
    """Chooses parts, colours and geometry of one avatar.

    `name` seeds DiceBear's choice of the discrete parts; `draws` gives the continuous variation.
    """
    facts = STYLES[style]
    described = definition(style)
    options: dict = {"seed": name}
    for part, probability in facts.probabilities.items():
        options[f"{part}Probability"] = probability
    labels: dict[str, str | float] = {}
    colours = {}
    for attribute, colour_name in facts.colours.items():
        base = draws.choice(described["colors"][colour_name]["values"])
        colour, moved = jitter_colour(draws, base, **JITTER[attribute])
        colours[attribute] = (base, moved)
        options[f"{colour_name}Color"] = [colour]
        labels[f"{attribute}_colour"] = colour
    avatar = DiceBearAvatar(_style(style), options).to_json()
    for part in described["components"]:
        labels[snake(part)] = avatar["options"].get(f"{part}Variant") or "none"
    geometry = draw_geometry(draws)
    labels.update(dataclasses.asdict(geometry))
    tree = ElementTree.fromstring(avatar["svg"])
    features = _vary_features(draws, tree, described)
    return Drawing(facts, tree, geometry, labels, colours, features)


def image_of(drawing: Drawing, size: int) -> UInt8[np.ndarray, "S S 4"]:
    """Draws the avatar on nothing: uint8 RGBA [size, size, 4], alpha not premultiplied."""
    return rasterise(_framed(drawing, drawing.tree, size))


def parts_of(drawing: Drawing, size: int) -> UInt8[np.ndarray, "S S"]:
    """Draws the map of parts: uint8 [size, size], indices into PARTS, 0 = background."""
    tree = copy.deepcopy(drawing.tree)
    _flatten(tree, drawing.facts)
    tree.set("shape-rendering", "crispEdges")
    rgba = rasterise(_framed(drawing, tree, size))
    return np.where(rgba[..., 3] >= 128, _PART_LEVELS[rgba[..., 0]], 0)


def face_box(drawing: Drawing) -> FaceBox:
    """Where the face lies in the image; the tilt hardly moves it and is left out."""
    facts, geometry = drawing.facts, drawing.geometry
    x, y, half_height, mouth = facts.face
    scale = geometry.zoom / facts.window
    return FaceBox(
        x=0.5 + geometry.shift_x + (x - facts.centre[0]) * scale * geometry.aspect,
        y=0.5 + geometry.shift_y + (y - facts.centre[1]) * scale,
        radius=half_height * scale,
        mouth=(mouth - y) / half_height,
    )


def snake(name: str) -> str:
    """A part's name as labels have it: "rearHair" -> "rear_hair"."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name)


def _body(tree: ElementTree.Element) -> ElementTree.Element:
    """The group that DiceBear clips to its canvas: the last child of the root."""
    return tree[-1]


def _vary_features(
    draws: Draws, tree: ElementTree.Element, described: dict
) -> dict[str, tuple[float, float, float]]:
    unit, features = described["canvas"]["width"], {}
    for use in _body(tree).iter(f"{_SVG}use"):
        part = use.get("href")[1:].split("-")[0]
        if part not in FEATURE_STRETCH:
            continue
        component = described["components"][part]
        cx, cy = component["width"] / 2, component["height"] / 2
        stretch, shift = FEATURE_STRETCH[part], _FEATURE_SHIFT[part] * unit
        sx, sy = draws.uniform(1 - stretch, 1 + stretch), draws.uniform(1 - stretch, 1 + stretch)
        dy = draws.uniform(-shift, shift)
        use.set(
            "transform",
            f"{use.get('transform')} translate({cx:.4f} {cy + dy:.4f}) "
            f"scale({sx:.5f} {sy:.5f}) translate({-cx:.4f} {-cy:.4f})",
        )
        features[part] = ((sx - 1) / stretch, (sy - 1) / stretch, dy / shift)
    return features


def _framed(drawing: Drawing, tree: ElementTree.Element, size: int) -> str:
    """The SVG text of the drawing framed on the head in an image of size x size pixels."""
    facts, geometry = drawing.facts, drawing.geometry
    scale = size / facts.window * geometry.zoom
    (cx, cy), (px, py) = facts.centre, facts.pivot
    transform = (
        f"translate({size * (0.5 + geometry.shift_x):.4f} {size * (0.5 + geometry.shift_y):.4f}) "
        f"scale({scale * geometry.aspect:.6f} {scale:.6f}) "
        f"translate({-cx} {-cy}) rotate({geometry.tilt:.4f} {px} {py})"
    )
    root = ElementTree.Element(f"{_SVG}svg", {k: v for k, v in tree.attrib.items()})
    root.set("viewBox", f"0 0 {size} {size}")
    root.set("width", str(size))
    root.set("height", str(size))
    root.extend(child for child in tree[:-1] if child.tag == f"{_SVG}defs")
    # The canvas' clip path is left out: bodies reach below the canvas, and a tilt would show it.
    group = ElementTree.SubElement(root, f"{_SVG}g", {"transform": transform})
    group.extend(_body(tree))
    return ElementTree.tostring(root, encoding="unicode")


def _flatten(tree: ElementTree.Element, facts: StyleFacts) -> None:
    """Fills each part with its flat colour, in place."""
    for group in tree.iter(f"{_SVG}defs"):
        for definition in group:
            if definition.tag == f"{_SVG}g":
                _paint(definition, definition.get("id").split("-")[0])
    body = _body(tree)
    for index, element in enumerate(list(body)):
        if element.tag != f"{_SVG}use":
            _paint(element, "body")
            if index == 0 and facts.chin is not None:
                _add_head(body, element, facts)


def _add_head(body: ElementTree.Element, skin: ElementTree.Element, facts: StyleFacts) -> None:
    """Splits an undivided head and neck at the chin: the upper part is drawn again as head."""
    clip = ElementTree.Element(f"{_SVG}clipPath", {"id": "above-the-chin"})
    extent = {"x": "-99", "y": "-99", "width": "999", "height": str(99 + facts.chin)}
    ElementTree.SubElement(clip, f"{_SVG}rect", extent)
    head = copy.deepcopy(skin)
    _paint(head, "head")
    head.set("clip-path", "url(#above-the-chin)")
    body.insert(1, clip)
    body.insert(2, head)


def _paint(element: ElementTree.Element, part: str) -> None:
    colour = f"#{PARTS.index(part) * _PART_STEP:02x}0000"
    if element.tag == f"{_SVG}mask":
        return
    for attribute in ("fill", "stroke"):
        if element.get(attribute, "none") != "none":
            element.set(attribute, colour)
    for child in list(element):
        style = child.get("style", "")
        opacity = float(child.get("opacity", 1)) * float(child.get("fill-opacity", 1))
        if opacity < 0.5 or "mix-blend-mode" in style:
            element.remove(child)
        else:
            for name in ("opacity", "fill-opacity"):
                child.attrib.pop(name, None)
            _paint(child, part)
