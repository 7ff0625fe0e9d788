"""Settings and flags that cannot be: status 2, with the name, the value and what is allowed."""

import pytest

import config
from main import main
from support.errors import SettingError
from support.settings import FILE_NAMES, NUMBER, SETTINGS, check_settings

NUMBERS = [setting for setting in SETTINGS if setting.flag and setting.kind in (int, NUMBER)]


def refusal(capsys, *argv: str) -> str:
    """What `main.py argv` says when it refuses."""
    try:
        status = main(list(argv))
    except SystemExit as stop:
        status = stop.code
    captured = capsys.readouterr()
    assert status == 2 and captured.out == "" and "Traceback" not in captured.err
    assert len(captured.err.strip().splitlines()) <= 2
    return captured.err


@pytest.mark.parametrize("setting", NUMBERS, ids=lambda setting: setting.name)
def test_numbers_out_of_range_or_no_numbers_at_all(settings, capsys, setting):
    wrong = ["many", "1e999" if setting.kind is int else "nan", ""]
    if setting.low is not None:
        wrong.append(str(setting.low - 1))
    if setting.low == 1:
        wrong.append("0")
    if setting.high is not None:
        wrong += [str(setting.high + 1), str(setting.high * 10**9)]
    for value in wrong:
        text = refusal(capsys, f"{setting.flag}={value}")
        assert setting.flag in text and value in text


@pytest.mark.parametrize(
    "setting", [s for s in SETTINGS if s.flag and s.kind is str], ids=lambda s: s.name
)
def test_texts_that_are_empty_or_hold_a_null_character(settings, capsys, setting):
    if not setting.empty:
        assert setting.flag in refusal(capsys, f"{setting.flag}= ")
    setattr(config, setting.name, "a\0b")
    with pytest.raises(SettingError, match=setting.name):
        check_settings()


@pytest.mark.parametrize("flag", sorted({setting.flag for setting in SETTINGS if setting.flag}))
def test_a_misspelt_flag_is_named_with_the_right_one(settings, capsys, flag):
    wrong = flag[:4] + flag[5:] if len(flag) > 6 else flag + "x"
    text = refusal(capsys, wrong, "1")
    assert wrong in text and ("did you mean" in text or "--help" in text)


@pytest.mark.parametrize(
    "name",
    [
        "../captions.json", "a/b.json", ".json", "journal.jsonl", "lock", "x" * 300 + ".json",
        "a\nb.json",
    ],
)  # fmt: skip
def test_database_files_have_names_of_their_own_within_the_folder(settings, name):
    for setting in FILE_NAMES:
        before = getattr(config, setting)
        setattr(config, setting, name)
        with pytest.raises(SettingError, match=setting):
            check_settings()
        setattr(config, setting, before)


def test_two_databases_in_one_file_are_refused(settings):
    settings.CAPTION_DB = settings.CAPTION_EMBEDDING_DB
    with pytest.raises(SettingError, match="three different"):
        check_settings()
