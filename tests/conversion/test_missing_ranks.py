"""The last ranks are missing: what is left looks whole, and every shape is smaller alike."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ropeconv.story.conversion import HfOptions, convert
from ropeconv.words.errors import IncompleteSource

FIXTURES = Path(__file__).parents[2] / "fixtures"


@pytest.mark.parametrize(
    ("name", "missing", "said"),
    [
        ("kjv-llama", "01", "1 of 2 ranks"),
        ("small/llama-2-ranks", "01", "1 of 2 ranks"),
        ("small/llama-first-generation", "01", "1 of 2 ranks"),
        ("small/llama-replicated-kv", "03", "3 of 4 ranks"),
    ],
)
def test_convert_when_the_last_rank_is_missing_then_said_so(
    tmp_path: Path, name: str, missing: str, said: str
) -> None:
    """Without a stated vocabulary, half a model was once converted as one of smaller heads."""
    source = tmp_path / "source"
    shutil.copytree(FIXTURES / name, source)
    (source / f"consolidated.{missing}.pth").unlink()
    params = json.loads((source / "params.json").read_text())
    (source / "params.json").write_text(json.dumps({**params, "vocab_size": -1}))

    with pytest.raises(IncompleteSource, match=said):
        convert(source, tmp_path / "target", HfOptions())

    assert not (tmp_path / "target").exists()
