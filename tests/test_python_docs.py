"""Python's documentation: frozen, the same on every Python; and how it was gathered."""

import json
import lzma

import pytest

from sedd_mini.text import python_docs as module
from sedd_mini.text.documents import load_documents
from sedd_mini.text.hashes import corpus_hash
from sedd_mini.text.python_docs import HASH, clean, docstrings, python_docs
from sedd_mini.text.tokenizers import PRINTABLE


def test_python_docs_are_the_frozen_ones():
    documents = python_docs()
    assert corpus_hash(documents) == corpus_hash(load_documents("docs")) == HASH
    assert len(documents) == 480
    assert set("\n".join(documents)) <= set(PRINTABLE)
    assert "Python Software Foundation" in (module.FROZEN.parent / "PYTHON_LICENSE.txt").read_text()


@pytest.mark.parametrize("damage", ["cut", "other text", "no list", "no xz"])
def test_damage_to_the_frozen_file_is_found(damage, tmp_path, monkeypatch):
    packed = module.FROZEN.read_bytes()
    texts = [*python_docs()[:-1], "another"]
    content = {
        "cut": packed[: len(packed) // 2],
        "other text": lzma.compress(json.dumps(texts).encode(), preset=0),
        "no list": lzma.compress(b"3"),
        "no xz": b"text",
    }[damage]
    (tmp_path / "python_docs.json.xz").write_bytes(content)
    monkeypatch.setattr(module, "FROZEN", tmp_path / "python_docs.json.xz")
    with pytest.raises(ValueError, match=r"python_docs\.json\.xz is damaged: install"):
        python_docs.__wrapped__()


def test_the_command_gathers_and_leaves_out_repetitions(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "modules", lambda _: [["One passage.", "One passage."], ["Other."]])
    contents = []
    for _ in range(2):
        module.main([str(tmp_path / "out.xz")])
        contents.append((tmp_path / "out.xz").read_bytes())
    assert contents[0] == contents[1]
    assert json.loads(lzma.decompress(contents[0]))[-2:] == ["One passage.", "Other."]
    assert "not those of the package" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="usage"):
        module.main([])


def test_docstrings_are_gathered_in_order_and_cleaned():
    source = b'"""Module."""\nclass A:\n    """Class."""\n    def f(self):\n        """Method."""\n'
    source += b'def g():\n    """Function."""\n    def h():\n        """Inner."""\n'
    assert [d for d in docstrings(source) if d] == [
        "Module.", "Class.", "Method.", "Function.", "Inner.",
    ]  # fmt: skip
    assert docstrings(b"not python at all") == []
    assert clean("Title\n*****\n\n\n\n  text – here   \n") == "Title\n\n  text - here"
