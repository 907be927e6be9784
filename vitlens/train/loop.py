"""Trainer: one loop for every modality - anchors from the disk, the lens tower alone in the network, checkpoints to go on from.

    Trainer(recipe, model=model, train=rows, evaluation=labelled_rows).run()

Which items come next, how they are augmented and the learning rate follow from the recipe and the number of the step; so a run
that was killed ends as if it had not been.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from vitlens.disk import atomic, lock_folder
from vitlens.errors import OptionError, VitlensError
from vitlens.model import ViTLens
from vitlens.processes import barrier, from_all, from_main, world
from vitlens.train import tower
from vitlens.train.checkpoints import CheckpointFolder, check_identity
from vitlens.train.evaluate import Score
from vitlens.train.gradcache import backward_through
from vitlens.train.items import Batch, StepSampler, TrainItems, collate, seed_of
from vitlens.train.logs import Logs, ProgressBar, write_csv
from vitlens.train.losses import LogitScale, anchor_loss
from vitlens.train.optimizer import MovingAverage, build_optimizer, rate_at, set_rate, warmup_of
from vitlens.train.prepare import Prepared, Rows
from vitlens.train.recipe import Recipe, require
from vitlens.train.recipe_files import recipe_yaml
from vitlens.train.start import anchor_name, train_mode
from vitlens.train.state import RunState


class NonFiniteLoss(VitlensError, ArithmeticError):
    """The loss or its gradient became NaN or infinite; the items of the batch are named."""


@dataclass
class Result:
    """What a run gives: the model (the encoder beside its anchors), its folder, and how it went."""

    model: ViTLens
    folder: Path
    steps: int
    loss: float
    score: Score | None
    """The last evaluation."""
    best_top1: float | None
    bad_items: dict[str, str]
    """Name -> what was wrong."""
    anchors_computed: int
    """Anchors that were not on disk yet."""
    stopped_early: bool


class Trainer:
    """Trains one encoder against frozen anchors.

    `model` holds the anchors (None: the recipe names them); `train` and `evaluation` are manifests, shards, or sequences of
    mappings such as {"audio": waveform, "image": "a.png", "text": "a dog", "label": "dog"} (None: the recipe's).

    Raises:
        OptionError: no data, or a recipe that does not fit together.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        model: ViTLens | None = None,
        train: Rows | None = None,
        evaluation: Rows | None = None,
        progress: bool = True,
    ) -> None:
        recipe = require(recipe)
        if model is None and recipe.anchors.model is None:
            recipe = replace(recipe, anchors=replace(recipe.anchors, model=anchor_name(recipe)))
        self.recipe = recipe
        self.model = model
        self.train = train if train is not None else recipe.data.train
        self.evaluation = evaluation if evaluation is not None else recipe.evaluation.data
        self.progress = progress
        if self.train is None:
            raise OptionError("no training data: data.train names a manifest or shards (--set data.train=FILE)")

    def run(self) -> Result:
        """Train, or go on with what an interrupted run of the same recipe left in its folder, and save the model.

        Raises:
            OptionError: the folder holds another run or is in use; too many items cannot be read.
            NonFiniteLoss: the loss is NaN or infinite.
            MissingDependencyError: accelerate and its like; `pip install 'vitlens[train]'`.
        """
        accelerator = tower.start_accelerate(self.recipe)
        deterministic = torch.are_deterministic_algorithms_enabled()
        if self.recipe.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS refuses to be deterministic without it
        holder = "another run writes there now"
        lock = lock_folder(self.recipe.folder, holder=holder) if accelerator.is_main_process else None
        bar = ProgressBar(show=self.progress and accelerator.is_main_process)
        torch.use_deterministic_algorithms(self.recipe.deterministic or deterministic)
        try:
            return _Run(self, accelerator, bar).go()
        finally:
            torch.use_deterministic_algorithms(deterministic)
            bar.close()
            if lock is not None:
                lock.close()


class _Run:
    """One run from start to end."""

    def __init__(self, trainer: Trainer, accelerator: Any, bar: ProgressBar) -> None:
        self.recipe = recipe = trainer.recipe
        self.accelerator, self.bar = accelerator, bar
        self.main: bool = accelerator.is_main_process
        self.device: torch.device = accelerator.device
        self.rank, self.world = world()
        rows = cast(Rows, trainer.train)
        self.prepared = prepared = Prepared(
            recipe, anchors=trainer.model, train=rows, evaluation=trainer.evaluation, device=self.device, report=bar.update
        )
        self.parallel = tower.Parallel(prepared.encoder, recipe, accelerator)
        initial = recipe.loss.initial_scale or prepared.model.logit_scale
        self.scale = LogitScale(initial, max_scale=recipe.loss.max_scale, learn=recipe.loss.learn_scale).to(self.device)
        named = tower.named_trainable(self.parallel.tower, self.scale)
        if len(named) <= recipe.loss.learn_scale:
            raise OptionError("nothing trains: there is no ModEmbed or lens to train, and model.trains names nothing")
        self.parameters = [parameter for _, parameter in named]
        inner = build_optimizer(named, recipe.optimizer)
        self.optimizer = accelerator.prepare_optimizer(inner, device_placement=False)
        ema = recipe.optimizer.ema
        average = None if ema is None else MovingAverage(tower.live_state(self.parallel.tower.encoder), ema)
        self.state = RunState(self.parallel, self.scale, inner, average, prepared.bad, accelerator.scaler)
        self.checkpoints = CheckpointFolder(recipe.folder / "checkpoints", recipe.checkpoints.keep)
        self.identity = {**recipe.identity(), "inputs": prepared.fingerprint()}
        torch.manual_seed(seed_of(recipe.seed, "train", self.rank))

    def go(self) -> Result:
        """Resume, train, finish."""
        saved = from_main(self.checkpoints.latest() if self.main else None)
        if saved is not None:
            check_identity(saved["identity"], self.identity, self.recipe.folder)
            self.state.restore(saved)
        self._announce(resumed=saved is not None)
        self.prepared.bad.check()
        progress = self.state.progress
        if not progress.stopped and progress.step < self.prepared.total:
            self.logs = Logs(self.recipe.folder, self.recipe.logs, step=progress.step) if self.main else None
            try:
                self._train()
            finally:
                if self.logs is not None:
                    self.logs.close()
        return self._finish()

    def _announce(self, *, resumed: bool) -> None:
        if not self.main:
            return
        folder, total = self.recipe.folder, self.prepared.total
        with atomic(folder / "recipe.yaml") as part:
            part.write_text(recipe_yaml(self.recipe), encoding="utf-8")
        warmup, asked = warmup_of(self.recipe.schedule, total), self.recipe.schedule.warmup_steps
        if resumed:
            self.bar.say(f"going on after step {self.state.progress.step} of {total}")
        if warmup != asked:
            self.bar.say(f"the run has {total} steps: warm-up shortened from {asked} to {warmup}")
        self._write_bad_items()
        if self.prepared.bad.reasons:
            self.bar.say(f"{len(self.prepared.bad.reasons)} items cannot be used, see {folder / 'bad_items.csv'}")

    def _write_bad_items(self) -> None:
        if self.main:
            reasons = self.prepared.bad.reasons.items()
            write_csv(self.recipe.folder / "bad_items.csv", [{"name": name, "reason": why} for name, why in reasons])

    # --- the loop ------------------------------------------------------------------------------------------------------

    def _batches(self) -> Iterator[Batch]:
        from torch.utils.data import DataLoader

        data, prepared = self.recipe.data, self.prepared
        along = {} if self.recipe.anchors.cache else prepared.anchors.readers
        items = TrainItems(prepared.reader, prepared.order.usable, self.recipe.seed, data.augment, along)
        steps = StepSampler(prepared.order, self.state.progress.step, prepared.total, self.rank, self.world)
        yield from DataLoader(
            cast(Any, items),
            batch_sampler=cast(Any, steps),
            num_workers=data.num_workers,
            collate_fn=collate,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # else it would draw its seed from the generator whose state a resumed run takes up
        )

    def _train(self) -> None:
        begin = time.monotonic()
        for batch in self._batches():
            if batch.failure is not None:
                raise batch.failure
            norm = self._step(batch)
            self._log(norm, time.monotonic() - begin)
            begin = time.monotonic()
            self._after_step()
            if self.state.progress.stopped:
                return

    def _step(self, batch: Batch) -> float:
        """One optimiser step; returns the norm of the gradients."""
        goals = self._goals(batch)
        inputs = batch.to(self.device).x
        progress, options = self.state.progress, self.recipe.optimizer
        self.optimizer.zero_grad()

        def loss_of(embeddings: Tensor) -> Tensor:
            return anchor_loss(embeddings, goals, self.scale(), ignore_duplicates=self.recipe.loss.ignore_duplicates)

        loss, embeddings = backward_through(
            self.parallel.embed,
            inputs,
            loss_of,
            micro_batch=self.recipe.micro_batch,
            backward=self.accelerator.backward,
            no_sync=self.parallel.no_sync,
            module=self.parallel.tower,
        )
        self._count(batch, loss, embeddings)
        self.scale.average_gradient()
        self.accelerator.unscale_gradients(self.optimizer)
        norm = tower.gradient_norm(self.parameters)
        if not torch.isfinite(norm) and self.accelerator.scaler is None:  # a scaler skips such a step by itself
            self._stop(batch, embeddings, f"the gradient's norm is {float(norm)}")
        if options.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, options.clip_norm, norm)
        set_rate(self.optimizer, rate_at(progress.step, self.prepared.total, options.lr, self.recipe.schedule))
        self.optimizer.step()
        self.scale.clamp_()
        progress.step += 1
        if self.state.average is not None:
            self.state.average.update(self.state.weights)
        return float(norm)

    def _goals(self, batch: Batch) -> dict[str, Tensor]:
        """The batch's anchors {modality: [b, E]}: from the disk, or through their towers."""
        if self.recipe.anchors.cache:
            found = self.prepared.anchors.lookup(batch.rows, batch.captions)
            return {name: rows.to(self.device, non_blocking=True) for name, rows in found.items()}
        inputs = {**batch.extra, **self.prepared.anchors.text_inputs(batch.rows, batch.captions)}
        model = self.prepared.model
        with torch.no_grad(), self.accelerator.autocast():
            return {name: F.normalize(model.tower(name)(x.to(self.device)).float(), dim=-1) for name, x in inputs.items()}

    def _count(self, batch: Batch, loss: Tensor, embeddings: Tensor) -> None:
        """The loss of the whole batch, and what could not be read; ends the run when either is past bearing."""
        sums = torch.stack([loss.float(), torch.tensor(float(len(batch.bad)), device=loss.device)])
        if self.world > 1:
            torch.distributed.all_reduce(sums)
        self.state.progress.loss = float(sums[0]) / self.world
        if self.prepared.bad.add(from_all(batch.bad) if float(sums[1]) else [], seen=self.recipe.batch_size):
            self._write_bad_items()
            self.prepared.bad.check()
        if not torch.isfinite(sums[0]):
            self._stop(batch, embeddings, f"the loss is {self.state.progress.loss}")

    def _stop(self, batch: Batch, embeddings: Tensor, what: str) -> None:
        finite = torch.isfinite(embeddings).all(dim=-1).tolist()
        odd = from_all([name for name, good in zip(batch.names, finite, strict=True) if not good])
        names = odd or from_all(batch.names)
        who = "items whose embedding is not finite" if odd else "the batch"
        raise NonFiniteLoss(
            f"{what} at step {self.state.progress.step + 1}; {who}: {', '.join(names[:64])}"
            f"{f' and {len(names) - 64} more' if len(names) > 64 else ''}. The weights were left as they were before this step. "
            "Try a smaller optimizer.lr, optimizer.clip_norm=1, or precision=fp32"
        )

    # --- after a step --------------------------------------------------------------------------------------------------

    def _log(self, norm: float, seconds: float) -> None:
        if self.logs is None:
            return
        progress, group = self.state.progress, self.optimizer.param_groups[0]
        self.logs.step(
            {
                "step": progress.step,
                "epoch": progress.step / self.prepared.order.steps,
                "loss": progress.loss,
                "lr": group["lr"] / group["scale"],
                "logit_scale": self.scale.value,
                "grad_norm": norm,
                "items_per_second": self.recipe.batch_size / max(seconds, 1e-9),
                "seconds": seconds,
            }
        )
        score = f", top-1 {100 * progress.score[0]:.1f} %" if progress.score else ""
        self.bar.update("training", progress.step, self.prepared.total, f"loss {progress.loss:.3f}{score}")

    def _after_step(self) -> None:
        done, steps, options = self.state.progress.step, self.prepared.order.steps, self.recipe.checkpoints
        epoch, place = divmod(done, steps)
        last = done == self.prepared.total
        best = False
        if self.prepared.zero_shot is not None and (last or (not place and epoch % self.recipe.evaluation.every_epochs == 0)):
            best = self._evaluate()
        if last or not place or best or (options.every_steps and done % options.every_steps == 0):
            content = {"identity": self.identity, **self.state.to_checkpoint()}
            if self.main:
                self.checkpoints.save(content, done, best=best)
        if self.logs is not None and not place:
            self.logs.draw()

    def _evaluate(self) -> bool:
        """Score the weights; True when they are the best so far."""
        progress, encoder = self.state.progress, self.parallel.tower.encoder
        with self.state.averaged():
            encoder.eval()
            score = cast(Any, self.prepared.zero_shot).score(self.parallel.embed, self.device)
            train_mode(encoder)
        progress.score = (score.top1, score.top5, score.items, score.skipped)
        best = score.top1 > progress.best
        progress.best, progress.waiting = (score.top1, 0) if best else (progress.best, progress.waiting + 1)
        patience = self.recipe.checkpoints.patience
        progress.stopped = patience is not None and progress.waiting >= patience
        if self.logs is not None:
            self.logs.evaluation({"step": progress.step, "epoch": progress.step / self.prepared.order.steps, **vars(score)})
        return best

    def _finish(self) -> Result:
        """Give the model its weights, save it, and report."""
        weights, log_scale = self.state.result()
        wanted = self.recipe.checkpoints.result == "best"
        best = from_main(self.checkpoints.best() if wanted and self.main else None)
        if best is not None:
            weights, log_scale = best["average"] or best["encoder"], best["log_scale"]
        self.parallel.close()
        model, encoder = self.prepared.model.to("cpu"), self.prepared.encoder
        tower.put_back(tower.live_state(encoder), weights)
        if self.recipe.model.lora:
            from vitlens.train.lora import merge_lora

            merge_lora(encoder.vit)
        model.eval().logit_scale = float(log_scale.exp())
        if self.main:
            model.save_pretrained(self.recipe.folder / "model")
        barrier()
        progress = self.state.progress
        return Result(
            model=model,
            folder=self.recipe.folder,
            steps=progress.step,
            loss=progress.loss,
            score=Score(*progress.score) if progress.score else None,
            best_top1=progress.best if progress.best >= 0 else None,
            bad_items=dict(self.prepared.bad.reasons),
            anchors_computed=self.prepared.computed,
            stopped_early=progress.stopped,
        )
