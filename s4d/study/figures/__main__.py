"""Draw again, from the csv of a results folder alone, the figures that need nothing else."""
import sys
from pathlib import Path

import pandas as pd

from ... import config as configs
from ...files import sha256, write_all, write_text
from .. import ablations
from ..artifacts import manifest_text, pictures, read_manifest
from . import correlation, experts, finetuning

DIRECT = {"experts_specificity": experts.specificity, "experts_usage": experts.usage,
          "finetuning_confusion": finetuning.confusion,
          "confusability": correlation.confusability, "static_gains": correlation.gains,
          "layer_similarity": correlation.layer_similarity,
          "prototype_similarity": correlation.prototype_similarity,
          "transfer_matrix": correlation.transfer}


def draw(name: str, folder: Path, profile: str, note: str):
    """Draw a figure by the name of its csv; None for one that needs more than csv."""
    def read(table: str = name) -> pd.DataFrame:
        return pd.read_csv(folder / "source_data" / f"{table}.csv", dtype={"setting": str})
    if name in DIRECT:
        return DIRECT[name](read(), note)
    if name == "finetuning_ablations":
        table = read().query("task == 'video' and metric == 'WAR'")
        titles, prof = {k: s.title for k, s in ablations.STUDIES.items()}, configs.profile(profile)
        own = {key: ablations.text(ablations.default_of(prof, key)) for key in set(table["study"])}
        return finetuning.ablations(table, titles, own, note)
    if name == "finetuning_comparison":
        table = read()
        base = table.pivot_table("value", ["task", "baseline"], "metric").reset_index()
        return finetuning.comparison(read("finetuning_table"), table[table["seed"].notna()], base,
                                     read("finetuning_paired"), note)
    if name == "static_along_clip":
        return correlation.along_clip(read(), "s", note)


if __name__ == "__main__":
    out = Path(sys.argv[1])
    manifest = read_manifest(out)
    for name, entry in manifest.items():
        seeds = f"{len(entry['seeds'])} seed{'s' if len(entry['seeds']) > 1 else ''}"
        seeds = f"seed {entry['seeds'][0]}" if name == "experts_usage" else seeds
        note = f"procedural faces, {entry['profile']} profile, {seeds}"
        if fig := draw(name, out, entry["profile"], note):
            files = pictures(fig, name)
            write_all({out / file: save for file, save in files.items()})
            entry["files"] |= {file: sha256(out / file) for file in files}
    write_text(out / "manifest.json", manifest_text(manifest))
