"""Mask providers: labels by name, files by name, label orders told apart, networks offline."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from interestyle_jax.errors import InputError
from interestyle_jax.interest.providers import PROVIDERS, make_provider
from interestyle_jax.interest.providers.celebamask import check_order
from interestyle_jax.interest.providers.detr import panoptic_labels
from interestyle_jax.interest.providers.face_labels import CELEBAMASK_HQ, FACE_PARSING
from interestyle_jax.interest.providers.label_files import read_labels
from interestyle_jax.interest.providers.masks import label_indices, pick
from interestyle_jax.interest.providers.transformers_network import input_size

IMAGE = np.zeros((24, 36, 3), np.uint8)


def write(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)
    return path


def check(masks, provider):
    """What the interface promises of any provider's result for IMAGE."""
    height, width = IMAGE.shape[:2]
    assert masks.labels.dtype == np.uint8 and masks.labels.shape == (height, width)
    assert masks.labels.max() < len(provider.labels)
    for mask in (masks.interest, masks.face):
        if mask is not None:
            assert mask.dtype == np.uint8 and mask.shape == (height, width, 1)
            assert set(np.unique(mask)) <= {0, 255}
    return masks


def test_names_and_options(tmp_path):
    assert set(PROVIDERS) == {"folder", "celebamask", "segformer", "detr", "selfie", "graphonomy"}
    with pytest.raises(InputError, match="--provider: 'mask', expected one of folder"):
        make_provider("mask")
    with pytest.raises(InputError, match="--model: no option of provider selfie, which takes"):
        make_provider("selfie", model="x", threshold=None)
    with pytest.raises(InputError, match="graphonomy needs its converted checkpoint"):
        make_provider("graphonomy")
    with pytest.raises(InputError, match="no such weight directory"):
        make_provider("graphonomy", weights=tmp_path / "none")
    with pytest.raises(InputError, match="no parser in these weights"):
        make_provider("graphonomy", weights="lpips_alex")


def test_listing_the_providers_imports_no_network_library():
    code = (
        "import sys; from interestyle_jax.interest.providers import PROVIDERS\n"
        "assert not {'torch', 'transformers', 'jax', 'ai_edge_litert'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_labels_are_found_by_name():
    labels = ("background", "l_eye", "Left-shoe", "hair")
    assert label_indices(("Hair", "left shoe"), labels) == (3, 2)
    with pytest.raises(InputError, match="--classes: 'nose', expected some of background, l_eye"):
        label_indices(("hair", "nose"), labels)
    with pytest.raises(InputError, match="--classes: no label"):
        label_indices((), labels)
    np.testing.assert_array_equal(
        pick(np.array([[0, 3, 255, 1]], np.uint8), (3, 255))[..., 0], [[0, 255, 255, 0]]
    )


def test_folder_finds_masks_by_name_and_resizes_proportional_ones(tmp_path):
    mask = np.zeros((12, 18), np.uint8)
    mask[:, 9:] = 200
    write(tmp_path / "m" / "deep" / "cat.png", mask)
    write(tmp_path / "f" / "cat.png", (mask > 0) & (np.arange(12)[:, None] < 3))
    provider = make_provider("folder", masks=tmp_path / "m", face_masks=tmp_path / "f")
    masks = check(provider(IMAGE, name="cat"), provider)
    right = np.tile(np.arange(36) >= 18, (24, 1))
    np.testing.assert_array_equal(masks.interest[..., 0] == 255, right)
    # A mask of 0 and 1 counts as 0 and 255.
    assert masks.face[0, 35, 0] == 255 and masks.face[6, 35, 0] == 0
    assert provider.labels == ("outside", "interest", "face")
    assert set(np.unique(masks.labels)) == {0, 1, 2}


def test_folder_reads_label_maps_and_palettes(tmp_path):
    labels = np.tile(np.arange(36, dtype=np.uint8) % 5, (24, 1))
    palette = Image.fromarray(labels).convert("P")
    palette.putpalette([7, 7, 7] * 256)
    palette.putdata(labels.ravel().tolist())
    (tmp_path / "l").mkdir()
    palette.save(tmp_path / "l" / "0007.png")
    options = {"labels": tmp_path / "l", "classes": ("2", "4"), "face_classes": ("4",)}
    provider = make_provider("folder", **options)
    masks = check(provider(IMAGE, name="7"), provider)
    np.testing.assert_array_equal(masks.labels, labels)
    np.testing.assert_array_equal(masks.interest[..., 0] == 255, np.isin(labels, (2, 4)))
    np.testing.assert_array_equal(masks.face[..., 0] == 255, labels == 4)
    # As a command line or JSON gives them.
    for classes in ("2, 4", [2, 4]):
        other = make_provider("folder", **options | {"classes": classes})(IMAGE, name="7")
        np.testing.assert_array_equal(other.interest, masks.interest)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--masks, --labels: the folder provider needs one of them"),
        ({"masks": "m", "labels": "l"}, "needs one of them"),
        ({"masks": "none"}, "none: no such directory"),
        ({"masks": "empty"}, "holds no image"),
        ({"masks": "m", "classes": ("1",)}, "--classes: for label maps"),
        ({"labels": "l"}, "--classes: no label"),
        ({"labels": "l", "classes": ("300",)}, "--classes: '300', expected some of 0, 1"),
        ({"labels": "l", "classes": ("1",), "face_masks": "m"}, "--face-masks: goes with --masks"),
        ({"masks": "twice"}, "has the same name as"),
    ],
)
def test_folder_refuses(tmp_path, options, message):
    for name in ("m/a.png", "l/a.png", "twice/1.png", "twice/01.png"):
        write(tmp_path / name, np.zeros((24, 36)))
    (tmp_path / "empty").mkdir()
    places = {k: tmp_path / v if isinstance(v, str) else v for k, v in options.items()}
    with pytest.raises(InputError, match=message):
        make_provider("folder", **places)


def test_folder_refuses_a_image_without_a_usable_mask(tmp_path):
    write(tmp_path / "m" / "square.png", np.zeros((24, 24)))
    write(tmp_path / "m" / "colour.png", np.arange(24 * 36 * 3).reshape(24, 36, 3) % 251)
    provider = make_provider("folder", masks=tmp_path / "m")
    with pytest.raises(InputError, match="square.png: is 24x24, the image 36x24"):
        provider(IMAGE, name="square")
    with pytest.raises(InputError, match="colour.png: mask has coloured pixels"):
        provider(IMAGE, name="colour")
    with pytest.raises(InputError, match="other: has no mask of that name"):
        provider(IMAGE, name="other")
    with pytest.raises(InputError, match="is an image of mode RGB, expected label indices"):
        read_labels(tmp_path / "m" / "colour.png")


def face_map(order):
    """A drawn face in this order's numbers, at half the image's size."""
    labels = np.zeros((12, 18), np.uint8)
    places = {
        "hair": (slice(0, 3), slice(2, 16)),
        "skin": (slice(3, 12), slice(4, 14)),
        "l_brow": (slice(4, 5), slice(5, 8)),
        "r_brow": (slice(4, 5), slice(10, 13)),
        "l_eye": (slice(5, 6), slice(5, 8)),
        "r_eye": (slice(5, 6), slice(10, 13)),
        "nose": (slice(6, 8), slice(8, 10)),
        "mouth": (slice(9, 10), slice(7, 11)),
        "cloth": (slice(11, 12), slice(0, 18)),
    }
    for part, place in places.items():
        labels[place] = order.index(part)
    return labels


ORDERS = {"celebamask-hq": CELEBAMASK_HQ, "face-parsing": FACE_PARSING}


def test_both_orders_hold_the_same_parts():
    assert sorted(CELEBAMASK_HQ) == sorted(FACE_PARSING) and len(set(FACE_PARSING)) == 19
    # What makes a mix-up costly, and what stays the same in both.
    assert (CELEBAMASK_HQ[13], CELEBAMASK_HQ[17]) == ("hair", "neck")
    assert (FACE_PARSING[13], FACE_PARSING[17]) == ("l_lip", "hair")
    assert CELEBAMASK_HQ[4:6] == FACE_PARSING[4:6] == ("l_eye", "r_eye")


@pytest.mark.parametrize("order", ORDERS)
def test_celebamask_maps_need_their_order(tmp_path, order):
    write(tmp_path / "l" / "12.png", face_map(ORDERS[order]))
    with pytest.raises(InputError, match="--order: .* holds label maps, say which order"):
        make_provider("celebamask", labels=tmp_path / "l")
    provider = make_provider("celebamask", labels=tmp_path / "l", order=order)
    masks = check(provider(IMAGE, name="12"), provider)
    names = np.array(ORDERS[order])[masks.labels]
    outside = np.isin(names, ("background", "cloth"))
    np.testing.assert_array_equal(masks.interest[..., 0] == 0, outside)
    np.testing.assert_array_equal(masks.face[..., 0] == 0, outside | (names == "hair"))
    (other,) = ORDERS.keys() - {order}
    wrong = make_provider("celebamask", labels=tmp_path / "l", order=other)
    with pytest.raises(InputError, match=f"lie as in the order {order}, not as in {other}"):
        wrong(IMAGE, name="12")


def test_maps_that_cannot_tell_are_taken_and_impossible_ones_refused():
    labels = face_map(CELEBAMASK_HQ)
    for order in ORDERS:
        check_order(np.zeros_like(labels), order, where="x")
        with pytest.raises(InputError, match="x: holds the value 20, labels end at 18"):
            check_order(labels + 19 * (labels == 1), order, where="x")
    # Sunglasses hide the eyes: a lower lip larger than the skin still tells.
    labels[np.isin(labels, (2, 4, 5))] = CELEBAMASK_HQ.index("hair")
    labels[:9][labels[:9] == 1] = CELEBAMASK_HQ.index("hair")
    with pytest.raises(InputError, match="lie as in the order celebamask-hq"):
        check_order(labels, "face-parsing", where="x")
    check_order(labels, "celebamask-hq", where="x")


def test_celebamask_parts_are_laid_over_each_other_in_the_authors_order(tmp_path):
    full = np.full((12, 18), 255, np.uint8)
    half = full * (np.arange(18) < 9)
    write(tmp_path / "0" / "00012_skin.png", full)
    write(tmp_path / "0" / "00012_hat.png", half)
    write(tmp_path / "0" / "00012_hair.png", half * (np.arange(12) < 6)[:, None])
    write(tmp_path / "1" / "02001_l_eye.png", full)
    provider = make_provider("celebamask", labels=tmp_path)
    assert provider.labels == CELEBAMASK_HQ
    masks = check(provider(IMAGE, name="12"), provider)
    assert set(np.unique(masks.labels)) == {1, CELEBAMASK_HQ.index("hat")}
    # The hat, which lies over the hair, is no part of the interest region.
    right = np.tile(np.arange(36) >= 18, (24, 1))
    np.testing.assert_array_equal(masks.interest[..., 0] == 255, right)
    assert (provider(IMAGE, name="2001").labels == 4).all()
    bangs = make_provider("celebamask", labels=tmp_path, order="face-parsing", classes=("hat",))
    assert (bangs(IMAGE, name="12").interest == 255).mean() == 0.5
    with pytest.raises(InputError, match="3: there are no labels of that name"):
        provider(IMAGE, name="3")


def test_celebamask_refuses_unknown_parts_and_mixed_folders(tmp_path):
    write(tmp_path / "a" / "00001_beard.png", np.zeros((4, 4)))
    with pytest.raises(InputError, match="'beard' is no part, expected skin, nose"):
        make_provider("celebamask", labels=tmp_path / "a")
    write(tmp_path / "b" / "00001_hair.png", np.zeros((4, 4)))
    write(tmp_path / "b" / "1.png", np.zeros((4, 4)))
    with pytest.raises(InputError, match=r"b/1.png: is no part such as"):
        make_provider("celebamask", labels=tmp_path / "b")
    with pytest.raises(InputError, match="--order: 'helen', expected celebamask-hq or"):
        make_provider("celebamask", labels=tmp_path / "a", order="helen")
    with pytest.raises(InputError, match="--labels: the celebamask provider needs"):
        make_provider("celebamask")


def test_selfie_finds_the_person(shared_dir):
    with Image.open(shared_dir / "portraits" / "male_07.jpg") as file:
        image = np.array(file.convert("RGB").resize((300, 200)))
    provider = make_provider("selfie")
    masks = provider(image)
    assert masks.labels.shape == (200, 300) and masks.face is None
    np.testing.assert_array_equal(masks.interest[..., 0], 255 * masks.labels)
    # The face is in the middle, the wall in the corners.
    assert (masks.labels[60:140, 120:180] == 1).mean() > 0.99
    assert not masks.labels[:20, :30].any() and not masks.labels[:20, -30:].any()
    wide = make_provider("selfie", threshold=0.01)(image).labels.sum()
    narrow = make_provider("selfie", threshold=0.99)(image).labels.sum()
    assert wide > masks.labels.sum() > narrow
    with pytest.raises(InputError, match="--threshold: 2, expected a probability"):
        make_provider("selfie", threshold=2)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders "segformer" and "detr" with random networks, as the library saves them."""
    torch = pytest.importorskip("torch", reason="torch is not installed (extra [masks])")
    transformers = pytest.importorskip("transformers", reason="torch is not installed")
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    names = ("background", "skin", "nose", "hair", "hat", "cloth")
    segformer = transformers.SegformerConfig(
        hidden_sizes=[8] * 4, depths=[1] * 4, num_attention_heads=[1] * 4, decoder_hidden_size=8,
        id2label=dict(enumerate(names)),
    )  # fmt: skip
    network = transformers.SegformerForSemanticSegmentation(segformer)
    network.save_pretrained(folder / "segformer")
    numbers = {"size": {"height": 64, "width": 96}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "segformer" / "preprocessor_config.json").write_text(json.dumps(numbers))
    backbone = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 8, 16], depths=[1] * 4, layer_type="basic",
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    detr = transformers.DetrConfig(
        use_timm_backbone=False, backbone_config=backbone, backbone=None,
        use_pretrained_backbone=False, d_model=32, encoder_layers=1, decoder_layers=1,
        encoder_ffn_dim=16, decoder_ffn_dim=16, num_queries=5,
        id2label={0: "person", 1: "cat", 2: "wall"},
    )  # fmt: skip
    transformers.DetrForSegmentation(detr).save_pretrained(folder / "detr")
    numbers = {"size": {"shortest_edge": 64, "longest_edge": 90}}
    (folder / "detr" / "preprocessor_config.json").write_text(json.dumps(numbers))
    transformers.SegformerModel(segformer).save_pretrained(folder / "headless")
    return folder


def noise():
    return np.random.default_rng(0).integers(0, 256, IMAGE.shape, dtype=np.uint8)


def test_segformer_labels_are_the_networks_own(models):
    import torch
    import transformers

    provider = make_provider("segformer", model=models / "segformer")
    assert provider.labels == ("background", "skin", "nose", "hair", "hat", "cloth")
    image = noise()
    masks = check(provider(image), provider)
    network = transformers.SegformerForSemanticSegmentation.from_pretrained(models / "segformer")
    scaled = np.asarray(Image.fromarray(image).resize((96, 64), Image.Resampling.BILINEAR))
    x = torch.tensor(scaled.transpose(2, 0, 1)[None] / 127.5 - 1, dtype=torch.float32)
    with torch.no_grad():
        logits = network.eval()(x).logits
    logits = torch.nn.functional.interpolate(logits, (24, 36), mode="bilinear")[0].numpy()
    top = np.sort(logits, axis=0)
    clear = top[-1] - top[-2] > 1e-5
    assert clear.mean() > 0.95 and len(np.unique(masks.labels)) > 1
    np.testing.assert_array_equal(masks.labels[clear], logits.argmax(0)[clear])
    np.testing.assert_array_equal(masks.interest[..., 0] == 255, np.isin(masks.labels, (1, 2, 3)))
    np.testing.assert_array_equal(masks.face[..., 0] == 255, np.isin(masks.labels, (1, 2)))
    hats = make_provider("segformer", model=models / "segformer", classes=("hat",))
    np.testing.assert_array_equal(hats(image).interest[..., 0] == 255, masks.labels == 4)


def test_networks_of_transformers_run_on_pytorchs_device(models, monkeypatch):
    import torch
    import transformers

    places = []
    move = transformers.SegformerForSemanticSegmentation.to

    def moved(network, device):
        places.append(device)
        return move(network, "cpu")

    monkeypatch.setattr(transformers.SegformerForSemanticSegmentation, "to", moved)
    for there, expected in ((False, "cpu"), (True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        provider = make_provider("segformer", model=models / "segformer")
        assert places.pop() == expected
    # A device without numbers, in the place of a GPU.
    seen = []
    outputs = {"logits": torch.zeros(1, 6, 4, 4)}
    network = provider._network
    monkeypatch.setattr(network, "_device", "meta")
    monkeypatch.setattr(
        network, "_network", lambda pixel_values: seen.append(pixel_values.device.type) or outputs
    )
    assert isinstance(network(noise())["logits"], np.ndarray)
    assert seen == ["meta"]


def test_detr_takes_persons_and_animals(models):
    provider = make_provider("detr", model=models / "detr", threshold=0.0)
    assert provider.labels == ("nothing", "person", "cat", "wall")
    masks = check(provider(noise()), provider)
    assert masks.face is None
    np.testing.assert_array_equal(masks.interest[..., 0] == 255, np.isin(masks.labels, (1, 2)))
    unsure = make_provider("detr", model=models / "detr", threshold=0.999)(noise())
    assert not unsure.labels.any() and not unsure.interest.any()
    walls = make_provider("detr", model=models / "detr", threshold=0.0, classes=("wall",))
    np.testing.assert_array_equal(walls(noise()).interest[..., 0] == 255, masks.labels == 3)


def test_panoptic_segments():
    # Queries: a sure cat, an unsure wall, a sure person, nothing.
    logits = np.log([[0.05, 0.9, 0.04, 0.01], [0.3, 0.1, 0.4, 0.2], [0.95, 0.02, 0.02, 0.01],
                     [0.01, 0.01, 0.01, 0.97]])  # fmt: skip
    maps = np.array([[[3, 3, -1]], [[9, 9, 9]], [[1, 5, -2]], [[9, 9, 9]]], np.float32)
    labels = panoptic_labels(logits, maps, lambda m: m, threshold=0.85)
    np.testing.assert_array_equal(labels, [[2, 1, 0]])
    assert panoptic_labels(logits, maps, lambda m: m, threshold=0.96) is None


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (512, (512, 512)),
        ({"height": 64, "width": 96}, (96, 64)),
        ({"shortest_edge": 800, "longest_edge": 1333}, (1067, 800)),
        ({"shortest_edge": 800, "longest_edge": 1000}, (1000, 750)),
        ({"shortest_edge": 300}, (400, 300)),
    ],
)
def test_input_sizes(size, expected):
    assert input_size(640, 480, size) == expected


def test_models_that_do_not_fit_are_refused(models, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="is a model of type detr, expected segformer"):
        make_provider("segformer", model=models / "detr")
    with pytest.raises(InputError, match="its weights lack .* of SegformerForSemanticSegmentation"):
        make_provider("segformer", model=models / "headless")
    with pytest.raises(InputError, match="none: cannot be loaded"):
        make_provider("segformer", model=tmp_path / "none")
    with pytest.raises(InputError, match="--classes: 'beard', expected some of background, skin"):
        make_provider("segformer", model=models / "segformer", classes=("beard",))


def test_pickled_weights_are_not_read(models, tmp_path):
    import torch

    target = tmp_path / "pickled"
    target.mkdir()
    (target / "config.json").write_bytes((models / "segformer" / "config.json").read_bytes())
    torch.save({"x": torch.zeros(1)}, target / "pytorch_model.bin")
    with pytest.raises(InputError, match="pickled: cannot be loaded: .*safetensors"):
        make_provider("segformer", model=target)


def test_a_missing_package_is_told(models, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"pip install 'interestyle_jax\[masks\]'"):
        make_provider("detr", model=models / "detr")
