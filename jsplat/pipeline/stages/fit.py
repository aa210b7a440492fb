"""The stage `fit`: captures and first labels to scenes."""

import shutil
from pathlib import Path

import jax
import numpy as np

from jsplat.captures.capture import Capture
from jsplat.captures.index import Listed
from jsplat.files.atomic import write_json
from jsplat.fitting import FailedIdentity, PendingIdentity, fit_batches, mean_curve
from jsplat.fitting.scenes_on_disk import save_scenes, saved_scenes, shards
from jsplat.labelsets.labelset import LabelSet
from jsplat.pipeline.config import RunConfig
from jsplat.pipeline.first_labels import first_labels
from jsplat.pipeline.stages.identities import wait_for_all_hosts
from jsplat.pipeline.work_folder import (
    checkpoint_folder,
    failures,
    leaving_out,
    record_failure,
)
from jsplat.runtime.devices import is_first_host, shard_of_host
from jsplat.runtime.progress import log


def fit_captures(
    listed: list[Listed], first: Path | None, labelset: LabelSet | None, config: RunConfig, folder: Path
) -> None:
    """A scene of each capture; a capture's own labels are never looked at, only the first labels.

    Every batch that is done is written at once. What cannot be fitted is named and left out.
    """

    def given(one: Listed) -> Capture:
        capture = one.unlabelled().read()
        if first is None:
            return capture
        return capture.with_labels(first_labels(first, capture).labels(), labelset)

    done = {*saved_scenes(folder), *failures(folder)}
    waiting = [
        PendingIdentity(o.identity, o.shape, lambda o=o: given(o))
        for o in shard_of_host(listed)
        if o.identity not in done
    ]
    checkpoints = checkpoint_folder(folder) / f"{jax.process_index()}-of-{jax.process_count()}"
    for result in fit_batches(waiting, labelset, config.fit, config.seed, checkpoints):
        if isinstance(result, FailedIdentity):
            with leaving_out(folder, result.identity):
                raise result.error
            continue
        for name in result.failed:
            record_failure(folder, name, "the fit diverged, and again with another seed")
        pairs = zip(result.identities, result.psnr.tolist(), result.ssim.tolist())
        each = {name: [psnr, ssim] for name, psnr, ssim in pairs if name not in result.failed}
        for name, (psnr, ssim) in each.items():
            log("identity fitted", identity=name, psnr=round(psnr, 3), ssim=round(ssim, 4))
        about = {"identities": each, "losses": result.losses, "capacity": result.capacity}
        save_scenes(folder, result.scene, result.identities, labelset, about)
        shutil.rmtree(checkpoints, ignore_errors=True)
    wait_for_all_hosts("fit", listed, folder)
    if is_first_host():
        write_json(folder / "fit.json", _merged(listed, folder))


def _merged(listed: list[Listed], folder: Path) -> dict:
    """What all batches found of those that are still listed, identities in the captures' order."""
    known, curves, capacity = {}, [], 0
    for about in shards(folder).values():
        scores = {name: of for name, of in about["found"]["identities"].items() if name in about["identities"]}
        known |= scores
        curves.append(([(step, value) for step, value in about["found"]["losses"]], len(scores)))
        capacity = max(capacity, about["found"]["capacity"])
    each = {one.identity: known[one.identity] for one in listed if one.identity in known}
    curve = mean_curve(curves)
    return {
        **dict(zip(("psnr", "ssim"), np.mean(list(each.values()), 0).tolist())),
        "identities": each,
        "curve": {"step": [s for s, _ in curve], "loss": [v for _, v in curve]},
        "capacity": capacity,
    }
