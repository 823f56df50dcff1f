"""Films read, written again, and refused."""

from fractions import Fraction

import av
import numpy as np
import pytest

from interestyle_jax.errors import InputError
from interestyle_jax.video.film_writer import FilmWriter, film_ending
from interestyle_jax.video.films import FrameReader, read_frames, scan_film
from tests.film_files import moving_frames, sound_packets, write_film

# Seven frames a 25th of a second apart, then others.
UNEVEN = [0, 40, 80, 120, 160, 200, 240, 300, 333, 500, 540, 900]


def again(film, path):
    """The film written anew from its own frames."""
    with FilmWriter(path, film, size=(film.width, film.height)) as writer:
        for frame in read_frames(film):
            writer.write(frame)
    return scan_film(path)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov"])
def test_times_length_and_sound_stay(tmp_path, name):
    times = [1000 + t for t in UNEVEN] if name == "a.mkv" else UNEVEN
    given = moving_frames(len(times))
    film = scan_film(write_film(tmp_path / name, given, milliseconds=times))
    assert len(film) == len(times) and film.num_sounds == 1 and not film.cuts
    np.testing.assert_allclose(film.seconds, np.array(times) / 1000, atol=1e-3)
    written = again(film, tmp_path / f"again{film_ending(film)}")
    np.testing.assert_allclose(written.seconds, film.seconds, atol=1e-6)
    assert abs(written.length - film.length) < 2e-3 and film.frame_rate == written.frame_rate
    assert sound_packets(written.path) == sound_packets(film.path) != []
    for before, after, first in zip(read_frames(film), read_frames(written), given, strict=True):
        assert np.abs(before.astype(int) - first).mean() < 3
        assert np.abs(before.astype(int) - after).mean() < 3


def test_a_film_without_sound_or_with_odd_sides(tmp_path):
    frames = moving_frames(5, width=47, height=33)
    film = scan_film(write_film(tmp_path / "a.mkv", frames, sound=False))
    assert (film.width, film.height, film.num_sounds) == (47, 33, 0)
    written = again(film, tmp_path / "b.mkv")
    assert (written.width, written.height, written.num_sounds) == (48, 34, 0)
    for before, after in zip(read_frames(film), read_frames(written), strict=True):
        assert np.abs(before.astype(int) - after[:33, :47]).mean() < 4


def test_pixels_that_are_no_squares_stay_so(tmp_path):
    wide = write_film(tmp_path / "a.mp4", moving_frames(3), sound=False, aspect=Fraction(4, 3))
    written = again(scan_film(wide), tmp_path / "b.mp4")
    with av.open(str(written.path)) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


def test_frames_come_in_any_order(tmp_path):
    film = scan_film(write_film(tmp_path / "a.mp4", moving_frames(60), sound=False))
    frames = list(read_frames(film))
    with FrameReader(film) as reader:
        for number in [59, 0, 1, 3, 2, 40, 58, 7]:
            np.testing.assert_array_equal(reader(number), frames[number])
        assert len(reader._kept) <= 32


def test_films_that_lie_on_their_side_are_turned(tmp_path):
    frames = moving_frames(4)
    path = write_film(tmp_path / "a.mp4", frames, sound=False)
    content = bytearray(path.read_bytes())
    # The matrix of the track's header, as phones write it: a quarter turn clockwise.
    at = content.index(b"tkhd") + 4 + 40
    turn = [0, 1 << 16, 0, -(1 << 16), 0, 0, 32 << 16, 0, 1 << 30]
    content[at : at + 36] = b"".join(x.to_bytes(4, "big", signed=True) for x in turn)
    (tmp_path / "turned.mp4").write_bytes(content)
    film = scan_film(tmp_path / "turned.mp4")
    assert (film.width, film.height) == (32, 48)
    first, plain = next(read_frames(film)), next(read_frames(scan_film(path)))
    np.testing.assert_array_equal(first, np.rot90(plain, -1))
    assert (again(film, tmp_path / "b.mp4").height, film.height) == (48, 48)


def test_a_cut_is_found_and_movement_is_none(tmp_path):
    scenes = [moving_frames(9), moving_frames(7, red=150)[:, ::-1]]
    film = scan_film(write_film(tmp_path / "a.mp4", np.concatenate(scenes), sound=False))
    assert film.cuts == (9,)


def cut_off(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def damaged(path):
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle - 300 : middle + 300] = b"\xff" * 600
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda p: cut_off(write_film(p / "a.mp4", moving_frames(30)), 0.6), "is cut off"),
        (
            lambda p: cut_off(
                write_film(p / "a.mp4", moving_frames(30), movflags="faststart"), 0.6
            ),
            "is cut off: .* frames up to",
        ),
        (lambda p: cut_off(write_film(p / "a.mkv", moving_frames(30)), 0.6), "is cut off: .* 1.2"),
        (lambda p: damaged(write_film(p / "a.mp4", moving_frames(30), sound=False)), "damaged"),
        (lambda p: (p / "no.mp4").write_text("not a film") and p / "no.mp4", "no film"),
        (lambda p: p / "none.mp4", "no such file"),
    ],
)
def test_what_is_no_whole_film_is_refused(tmp_path, make, told):
    path = make(tmp_path)
    with pytest.raises(InputError, match=told) as refused:
        scan_film(path)
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)


def test_sound_alone_is_refused(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as output:
        audio = output.add_stream("aac", rate=16000, layout="mono")
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.int16), "s16", "mono")
        tone.sample_rate = 16000
        output.mux(audio.encode(tone))
        output.mux(audio.encode())
    with pytest.raises(InputError, match="has no pictures"):
        scan_film(path)


def test_nothing_half_written_remains(tmp_path):
    film = scan_film(write_film(tmp_path / "a.mp4", moving_frames(3)))
    with pytest.raises(RuntimeError), FilmWriter(tmp_path / "b.mp4", film, size=(48, 32)) as writer:
        writer.write(next(read_frames(film)))
        raise RuntimeError
    with pytest.raises(InputError, match="cannot be written"):
        FilmWriter(tmp_path / "no" / "b.mp4", film, size=(48, 32))
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
