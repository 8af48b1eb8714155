"""Settings: what the file may say, what is refused and how, and that keys really move."""

import json
import tomllib

import msgspec
import pytest

from engine.base.errors import UserError
from eos_tui import cli, config, keys
from eos_tui.app import EosApp
from eos_tui.config import Config, View, load, parse, to_toml
from eos_tui.screens.help import Help

from synthetic import make_run


@pytest.fixture(autouse=True)
def keys_as_in_the_table():
    yield
    keys.remap({})


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("EOS_CONFIG", str(tmp_path / "config.toml"))
    return tmp_path / "config.toml"


def test_without_a_file_the_defaults_hold(file):
    assert load() == (Config(), file, False)


def test_what_the_file_says_is_in_force_and_the_rest_stays_as_it_was(file):
    file.write_text('[view]\ntheme = "light"\nfps = 2\n')
    view = load().config.view
    assert (view.theme, view.fps, view.mouse) == ("light", 2.0, True)


def test_the_whole_file_as_shown_reads_back_to_the_same_settings():
    wanted = parse(b'[view]\nascii = true\n[keys.dashboard]\nzoom_in = "z"\n', "here")
    shown = to_toml(wanted)
    again = parse(shown.encode(), "again")
    assert again.view == wanted.view
    assert config.key_changes(again) == {"dashboard.zoom_in": "z"}
    assert len(tomllib.loads(shown)["keys"]["dashboard"]) == sum(key.place == "dashboard" for key in keys.TABLE)


REFUSED = [
    ("[view]\nthme = 'dark'", '[view] thme: unknown key; did you mean "theme"?'),
    ("[veiw]\nfps = 1", 'veiw: unknown key; did you mean "view"?'),
    ("[view]\nfps = 100", "[view] fps = 100: expected `float` <= 10.0"),
    ("[view]\nfps = nan", "fps"),
    ("[view]\ntheme = 'pink'", '[view] theme = "pink": expected one of "auto", "dark", "light", "terminal"'),
    ("[view]\nplots = ['sharpnes']", '[view] plots: no plot is called "sharpnes"; did you mean "sharpness"?'),
    ("[view]\nplots = ['x', 'y', 'x']", '[view] plots: "x" is there twice'),
    ("[view]\ndots = 'round'", '[view] dots = "round": expected one of "braille", "octants"'),
    ("[view]\nlayout = 'three'", '[view] layout = "three": expected one of "all", "two", "one"'),
    ("[view]\nmouse = 1", "[view] mouse = 1: expected `bool`"),
    ("view = 3", "view = 3: expected `object`"),
    ("[keys.dashboard]\nzom_in = 'z'", '[keys.dashboard] zom_in: no such action; did you mean "zoom_in"?'),
    ("[keys.kitchen]\nzoom_in = 'z'", "[keys.kitchen]: no such place"),
    ("[keys.dashboard]\nzoom_in = 'hyper+z'", 'zoom_in = "hyper+z": expected keys'),
    ("[keys.dashboard]\nzoom_in = ''", "expected keys"),
    ("[keys.dashboard]\nzoom_in = 'q'", 'the key "q" would be both'),
    ("[keys.dashboard]\nzoom_in = 3", "[keys.dashboard.zoom_in]" ),
    ("[keys.anywhere]\nhelp = 'space'", 'the key "space" would be both'),
    ("view = ", "not valid TOML"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), REFUSED, ids=[text for text, _ in REFUSED])
def test_what_is_wrong_is_reported_by_name(text, said):
    with pytest.raises(UserError) as caught:
        parse(text.encode(), "settings.toml")
    assert str(caught.value).startswith("settings.toml: ")
    assert said.strip("[]").split(".")[-1] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_and_files_that_are_too_large_are_refused(file):
    with pytest.raises(UserError, match="not UTF-8"):
        parse(b"\xff\xfe", "here")
    file.write_bytes(b"#" * (config.MAX_BYTES + 1))
    with pytest.raises(UserError, match="larger than 64 kB"):
        load()
    file.unlink()
    file.mkdir()
    with pytest.raises(UserError, match="cannot be read"):
        load()


def test_a_refused_file_leaves_the_keys_alone():
    keys.remap({"dashboard.zoom_in": "z"})
    with pytest.raises(UserError):
        parse(b"[keys.dashboard]\nzoom_out = 'q'", "here")
    assert keys.remapped() == {"dashboard.zoom_in": "z"}


def test_every_action_has_a_name_of_its_own_in_its_place():
    names = [key.id for key in keys.TABLE]
    assert len(set(names)) == len(names)
    assert all(key.name.isidentifier() for key in keys.TABLE)


def test_low_bandwidth_means_one_frame_sixteen_colours_and_no_mouse():
    slow = View(low_bandwidth=True, fps=10).settled()
    assert (slow.fps, slow.theme, slow.mouse) == (1.0, "terminal", False)
    assert View(low_bandwidth=True, theme="dark", fps=0.5).settled().theme == "dark"
    assert View().settled() == View()


def test_two_keys_may_change_places():
    keys.remap({"dashboard.zoom_in": "-", "dashboard.zoom_out": "+"})
    assert {key.name: key.shown for key in keys.offered("dashboard")}["zoom_in"] == "-"


async def test_a_remapped_key_works_and_the_old_one_no_longer(tmp_path):
    keys.remap({"dashboard.zoom_in": "z", "anywhere.help": "f1"})
    app = EosApp(make_run(tmp_path), fps=10)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        before = app.screen.timeline.span
        await pilot.press("+")
        assert app.screen.timeline.span == before
        await pilot.press("z")
        assert app.screen.timeline.span != before
        await pilot.press("f1")
        assert isinstance(app.screen, Help)
        assert "f1 " in "".join(key.shown + " " for key in keys.offered(app.screen.place))


@pytest.mark.parametrize("name", [field.name for field in msgspec.structs.fields(View)])
def test_every_setting_of_the_view_is_an_option_of_the_command_line(name):
    from eos_tui.cli import ViewOptions  # one name for both

    assert name in ViewOptions.__dataclass_fields__


def test_settings_are_printed_as_json(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("EOS_CONFIG", str(tmp_path / "config.toml"))
    printed = []
    for command in ("show", "path", "validate"):
        assert cli.main(["config", command, "--json"]) == 0
        printed.append(json.loads(capsys.readouterr().out))
    assert printed[0]["view"]["fps"] == View().fps
    assert printed[1:] == [
        {"path": str(tmp_path / "config.toml"), "exists": False}, {"path": str(tmp_path / "config.toml"), "exists": False, "in_order": True}
    ]  # fmt: skip
