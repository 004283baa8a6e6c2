"""Do the tests have teeth? Put one plausible bug at a time into a copy of the code, and see that a test fails.

Run by `nox -s mutants`, or `python tests/mutants.py [NAME ...]`. A mutant that survives is a missing test.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOSS, PLAIN, FUSED = "losses/disambiguation.py", "losses/plain.py", "kernels/ambiguity.py"
BLOCK = "kernels/ambiguity_block.py"
TRITON = "kernels/ambiguity_triton.py"
SAMPLER, PATCH = "sampling/hierarchical.py", "kernels/patch.py"


@dataclass(frozen=True)
class Mutant:
    """One bug: in ``file``, ``old`` becomes ``new``; ``tests`` must notice."""

    name: str
    file: str
    old: str
    new: str
    tests: str


MUTANTS = (
    Mutant(
        "background absorbs all classes",
        LOSS,
        "to_background = (total * ~known).sum(dim=2, keepdim=True)",
        "to_background = total[:, :, 1:].sum(dim=2, keepdim=True)",
        "tests/losses",
    ),
    Mutant(
        "unannotated labels leak",
        PLAIN,
        "return label * known.flatten(1).gather(1, slot * classes + label)",
        "return label",
        "tests/losses",
    ),
    Mutant(
        "unannotated is background",
        PLAIN,
        "return torch.where(target == 0, background, own)",
        "return own",
        "tests/losses",
    ),
    Mutant(
        "entropy over merged classes",
        PLAIN,
        "entropy = -(p * _clamped(log_p, clamp)).sum(dim=1)",
        "entropy = -(log_p_target.exp() * log_p_target)",
        "tests/losses",
    ),
    Mutant("entropy's sign", PLAIN, "entropy = -(p * _clamped(log_p, clamp))", "entropy = (p * _clamped(log_p, clamp))", "tests/losses"),
    Mutant("wrong eps", LOSS, "DICE_EPS = 1.0", "DICE_EPS = 1e-5", "tests/losses"),
    Mutant("wrong gamma", PLAIN, "GAMMA = 2\n", "GAMMA = 1\n", "tests/losses"),
    Mutant(
        "mean over unannotated channels",
        LOSS,
        'averaged = known if dice_over == "annotated" else known & (sums.voxels > 0)',
        "averaged = torch.ones_like(known)",
        "tests/losses",
    ),
    Mutant(
        "groups weigh the same",
        LOSS,
        "share = size * annotated_slot / n_counted.clamp(min=1)[:, None]",
        "share = annotated_slot / annotated_slot.sum(dim=1, keepdim=True).clamp(min=1)",
        "tests/losses",
    ),
    Mutant(
        "padding counts in the entropy",
        PLAIN,
        "inside = (slot > 0).to(p.dtype)",
        "inside = torch.ones_like(slot).to(p.dtype)",
        "tests/losses",
    ),
    Mutant("fused: unannotated labels leak", BLOCK, "hidden = y < 0 or y >= classes or (w >> np.uint64(y)) & np.uint64(1)", "hidden = y < 0 or y >= classes", "tests/losses"),
    Mutant("fused: faint background lost", BLOCK, "        elif background[i] < rows.FAINT:\n            best, log_sum = background_exactly(logits, v0 + i, word[i])\n            log_q", "        elif background[i] < -1:\n            best, log_sum = background_exactly(logits, v0 + i, word[i])\n            log_q", "tests/losses"),
    Mutant("fused: derivative of focal", FUSED, "(_ONE - q) * (q + q) * log_q[i]", "(_ONE - q) * q * log_q[i]", "tests/losses"),
    Mutant("fused: gradient not centred", FUSED, "common[i] = -(common[i] * inverse[i]) - own[i]", "common[i] = -(common[i] * inverse[i])", "tests/losses"),
    Mutant("fused: padding counts in the entropy", FUSED, "weight[i] = _ONE if slot[i] > 0 else _ZERO", "weight[i] = _ONE", "tests/losses"),
    Mutant("fused: neighbouring slices share sums", "kernels/rows.py", "sums[slot[i]] += a[i]", "sums[slot[0]] += a[i]", "tests/losses"),
    Mutant("fused: a block keeps the slots looked up before", FUSED, "if bounds.size == 1 and not rows.equal(slot, before[:n_before]):", "if bounds.size == 1 and n_before == 0:", "tests/losses/test_fused.py"),
    Mutant("fused: sums of other slots go on", FUSED, "if repeats == _REPEATS or not rows.equal(slot, before[:n_before]):", "if repeats == 0:", "tests/losses/test_fused.py"),
    Mutant("fused: the last sums by place are lost", FUSED, "        v0 += n\n    _add_by_place(by_place, before, n_before, by_class)", "        v0 += n", "tests/losses/test_fused.py"),
    Mutant("fused: sums by place are added twice", FUSED, "    by_place[:, :n] = _ZERO", "    by_place[:, :0] = _ZERO", "tests/losses/test_fused.py"),
    Mutant("fused: classes from 32 on read the lower bits", BLOCK, "    elif c == 32:\n", "    elif c == 64:\n", "tests/losses/test_fused.py"),
    Mutant("fused: a run of a group runs on", BLOCK, "            bounds[runs] = i\n", "            bounds[runs] = i - 1\n", "tests/losses/test_fused.py"),
    Mutant("clamp bounds one side alone", PLAIN, "log_p.clamp(math.log(clamp), math.log1p(-clamp))", "log_p.clamp(math.log(clamp))", "tests/losses/test_reference.py"),
    Mutant("clamp leaves the entropy alone", PLAIN, "entropy = -(p * _clamped(log_p, clamp)).sum(dim=1)", "entropy = -(p * log_p).sum(dim=1)", "tests/losses/test_reference.py"),
    Mutant("background counts as a label", LOSS, "has_label=(sums.voxels[:, :, 1:] > 0)", "has_label=(sums.voxels > 0)", "tests/losses/test_settings.py"),
    Mutant("no label and no group mixed up", LOSS, 'terms.has_annotation if unannotated_when == "no_group" else terms.has_label', 'terms.has_label if unannotated_when == "no_group" else terms.has_annotation', "tests/losses/test_settings.py"),
    Mutant("a clamp is ignored by the fast kernels", "losses/implementations.py", "    if clamp:\n", "    if clamp > 1:\n", "tests/losses/test_settings.py"),
    Mutant("tracing meets a kernel", "losses/implementations.py", "if torch.compiler.is_compiling():", "if not torch.compiler:", "tests/losses/test_compile.py"),
    Mutant("triton: only the first 16 slots of a tile", TRITON, "first = tl.min(tl.where(present & (slot >= first + _SLOTS), slot, _NONE), 0)", "first = _NONE + 0 * first", "tests/losses/test_triton.py"),
    Mutant("triton: tiles beside the patch count", TRITON, "(x < X) & (y < Y) & (z < Z)", "(x < X + 1) & (y < Y) & (z < Z)", "tests/losses/test_triton.py"),
    Mutant("triton: unannotated labels leak", TRITON, "    target = tl.where((word >> target.to(word.dtype)) & 1 != 0, 0, target)\n", "", "tests/losses/test_triton.py"),
    Mutant("triton: derivative of focal", TRITON, "(2 * q * log_q - (1 - q))", "(q * log_q - (1 - q))", "tests/losses/test_triton.py"),
    Mutant("triton: probabilities as exact as float16", TRITON, "tl.dot(inside, high, tl.dot(inside, low))", "tl.dot(inside, high)", "tests/losses/test_triton.py"),
    Mutant("triton: gaps of the logits kept in the gradient", "losses/triton_sums.py", "        logits = logits.contiguous()\n", "        pass\n", "tests/losses/test_triton.py"),
    Mutant("the method keeps lambda's rule for itself", "methods/self_disambiguation.py", ", settings.unannotated_when", "", "tests/losses/test_settings.py"),
    Mutant("the method keeps its clamp for itself", "methods/self_disambiguation.py", "        clamp=settings.clamp,\n", "", "tests/losses/test_settings.py"),
    Mutant("fused: voxels in unannotated slots count", FUSED, "    probability[~example.knows] = 0.0\n", "", "tests/losses"),
    Mutant("fused: the last voxel is left out", FUSED, "return np.append(np.arange(0, max(voxels, 1), size), voxels)", "return np.append(np.arange(0, max(voxels, 1), size), max(voxels - 1, 0))", "tests/losses"),
    Mutant("off-by-one slice table", "views.py", "np.arange(k) + 0.5", "np.arange(k) + 1.5", "tests/test_views.py"),
    Mutant(
        "kept slices share a group",
        "annotation.py",
        "sum(map(len, rows)) + np.arange(known.sum())",
        "sum(map(len, rows))",
        "tests/test_annotation.py",
    ),
    Mutant(
        "hidden labels are seen",
        "annotation.py",
        "return np.where(table[group, value], label, 0).astype(np.uint8)",
        "return value.astype(np.uint8)",
        "tests/test_annotation.py tests/sampling",
    ),
    Mutant(
        "seed does not matter",
        "sampling/stream.py",
        "key = np.array([seed, purpose], dtype=np.uint64)",
        "key = np.array([0, purpose], dtype=np.uint64)",
        "tests/sampling",
    ),
    Mutant(
        "the last child is never drawn",
        SAMPLER,
        "chosen = int(first + generator.integers(stop - first))",
        "chosen = int(first + generator.integers(max(1, stop - first - 1)))",
        "tests/sampling",
    ),
    Mutant("swapped axes", PATCH, "if axis == 0 else (j + dj if axis == 1", "if axis == 1 else (j + dj if axis == 0", "tests/augmentation"),
    Mutant("label not the nearest", PATCH, "np.int32(x >= 0.5), np.int32(y >= 0.5)", "np.int32(x >= 1.0), np.int32(y >= 0.5)", "tests/augmentation"),
    Mutant("padding is group 0", PATCH, "np.full(n_groups + 1, OUTSIDE_GROUP", "np.full(n_groups + 1, 0", "tests/augmentation tests/test_patches.py"),
    Mutant("rotation the other way", "augmentation/affine.py", "[[cz, -sz, 0], [sz, cz, 0]", "[[cz, sz, 0], [-sz, cz, 0]", "tests/augmentation"),
    Mutant("scale the other way", "augmentation/affine.py", "@ about_x / self.scale", "@ about_x * self.scale", "tests/augmentation"),
    Mutant("right is left", "laterality.py", '"right" if share >= 0.5 else "left"', '"left" if share >= 0.5 else "right"', "tests/test_laterality.py"),
    Mutant(
        "harmonised grid half a voxel off",
        "geometry.py",
        "np.arange(to) * float(s), 0.0",
        "(np.arange(to) + 0.5) * float(s) - 0.5, 0.0",
        "tests/test_harmonise.py",
    ),
    Mutant("window before interpolation", "kernels/resample.py", "row[k] = wa * np.float32(a[k])", "row[k] = wa * np.float32(min(a[k], 400))", "tests/test_harmonise.py"),
    Mutant("unannotated scores 0", "metrics/outcomes.py", "return Outcome.NOT_ANNOTATED", "return Outcome.FALSE_POSITIVE", "tests/metrics tests/test_evaluate.py"),
    Mutant("dice of twice the union", "metrics/overlap.py", "(2.0 * counts.intersection + smooth)", "(counts.intersection + smooth)", "tests/metrics"),
    Mutant(
        "a patient on two sides",
        "splits.py",
        'union(patient, f"zcase:{item.case}")',
        'union(patient + item.case, f"zcase:{item.case}")',
        "tests/test_splits.py",
    ),
    Mutant("official test cases are dealt", "splits.py", "if item.official is not None}", 'if item.official == "train"}', "tests/test_splits.py"),
    Mutant("moments forgotten on resume", "engine/state.py", "        _lay_out_as_parameters(self.optimiser)\n", "", "tests/test_train.py"),
    Mutant("resume starts the stream again", "steps/train.py", "feed.run(state.step, last)", "feed.run(0, last - state.step)", "tests/test_train.py"),
    Mutant("sparse rows not turned with the scan", "slice_rows.py", "yield axis, rows if flip > 0 else rows[::-1]", "yield axis, rows", "tests/test_slice_rows.py"),
    Mutant("truncated structures known everywhere", "slice_rows.py", "rows[:, structure - 1] &= inside", "rows[:, structure - 1] |= inside", "tests/test_slice_rows.py"),
    Mutant("orientation by spread alone", "placement.py", "return self.inside >= test.inside and self.spread", "return self.inside >= 0 and self.spread", "tests/test_placement.py"),
    Mutant("components beyond the midline cut the wrong way", "laterality.py", '[right if side == "cut" else here[side]', '[left if side == "cut" else here[side]', "tests/test_laterality.py"),
    Mutant("volumes not balanced", "kernels/label_resample.py", "chosen[at[order[: abs(excess)]]] = 0 if excess > 0 else structure", "pass", "tests/test_harmonise.py"),
    Mutant("twins on two sides", "splits.py", 'union(f"zcase:{a}", f"zcase:{b}")', 'union(f"zcase:{a}", f"zcase:{a}")', "tests/test_twins.py"),
    Mutant("gas counts the other way", "plausibility.py", "(values < GAS_BELOW_HU)", "(values > GAS_BELOW_HU)", "tests/test_plausibility.py"),
    Mutant("position of a restored voxel", "kernels/restore.py", "np.floor", "np.ceil", "tests/kernels"),
    Mutant("components joined over faces only", "kernels/components.py", "if start[i] <= stop[j] and start[j] <= stop[i]:", "if start[i] < stop[j] and start[j] < stop[i]:", "tests/test_components.py"),
    Mutant("a diagonal neighbour row forgotten", "kernels/components.py", "((1, 1), (1, 0), (1, -1), (0, 1))", "((1, 1), (1, 0), (0, 1))", "tests/test_components.py"),
    Mutant("backwards axes taken forwards", "components.py", "(0, self.shape[axis] - beyond) if back", "(beyond, self.shape[axis]) if back", "tests/test_components.py"),
    Mutant("flips forgotten in the image", "kernels/resample.py", "(n - 1 - low, n - 1 - high, weight) if backwards", "(low, high, weight) if backwards", "tests/test_harmonise.py"),
    Mutant("flips forgotten in the label", "kernels/label_resample.py", "AxisWeights(n - 1 - self.old, self.weight)", "AxisWeights(self.old, self.weight)", "tests/test_harmonise.py"),
    Mutant("the last voxels are not counted", "kernels/values.py", "    for i in range(n * words.size, flat.size):\n        counts[flat[i]] += 1\n", "", "tests/kernels/test_values.py"),
    Mutant("painting forgets what it covers", "kernels/values.py", "other = label[i] != 0 and label[i] != value", "other = False", "tests/kernels/test_values.py"),
    Mutant("a case in an object store is there too early", "store/arrays.py", "            remove_case(folder, incoming)\n            _write_group(folder, case, foreground)", "            _write_group(folder, case, foreground)", "tests/test_object_store.py"),
    Mutant("lost slices kept quiet", "slice_rows.py", "if slices.apart and lost:", "if slices.apart and lost > 1000:", "tests/test_slice_rows.py"),
    Mutant("a gzip file taken without its end", "readers/nifti.py", "        while file.read(_PIECE):\n            pass\n", "", "tests/test_readers.py tests/test_damage.py"),
    Mutant("--split-crossing forgotten", "relabel.py", "ids, decision or by_card)", "ids, decision)", "tests/test_ingest.py"),
    Mutant("workers of many threads", "steps/ingest.py", "    os.environ.update(dict.fromkeys(THREAD_VARIABLES, \"1\"))\n", "", "tests/test_ingest.py"),
    Mutant("every k-th slice from the first", "views.py", "np.arange(step // 2, n_slices, step)", "np.arange(0, n_slices, step)", "tests/test_views.py"),
    Mutant("random slices shared by all cases", "views.py", "{axis}\\n{key}", "{axis}", "tests/test_views.py"),
    Mutant("random slices without their seed", "views.py", 'f"{seed}\\n', 'f"', "tests/test_views.py"),
    Mutant("slices without the structure never known", "views.py", " | self._chosen(without_it & ~with_it, line.rank)", "", "tests/test_views.py"),
    Mutant("slices spaced over all that is known", "views.py", "known[:, column] & held[:, column]", "known[:, column]", "tests/test_views.py"),
    Mutant("slices chosen that nobody drew", "views.py", "known[:, column] & held[:, column]", "held[:, column]", "tests/test_views.py"),
    Mutant("structures not named thinned too", "views.py", "kept[:, columns] = self", "kept[:] = self", "tests/test_views.py"),
    Mutant("native slices beside the nearest", "views.py", "np.ceil(position - 0.5)", "np.floor(position)", "tests/test_views.py"),
    Mutant("a view reaches other sources", "views.py", "return not self.sources or source in self.sources", "return True", "tests/test_views.py"),
    Mutant("a thinned slice keeps its whole row", "annotation.py", "rows.append(left[known])", "rows.append(self.known_slices(axis, len(mask))[known])", "tests/test_annotation.py"),
    Mutant("slices of one row share a group", "annotation.py", "sum(map(len, rows)) + np.arange(known.sum())", "sum(map(len, rows))", "tests/test_annotation.py"),
    Mutant("contours counted where nothing is known", "steps/sparsify.py", "drawn = known & held_slices", "drawn = held_slices", "tests/test_sparsify.py"),
    Mutant("voxels that two axes know count twice", "steps/sparsify.py", "unknown *= 1 - known.mean(axis=0)", "unknown -= known.mean(axis=0)", "tests/test_sparsify.py"),
    Mutant("test cases count in a view", "steps/sparsify.py", 'if sides[brief.key] == "train"', 'if sides[brief.key]', "tests/test_sparsify.py"),
    Mutant("hidden structures kept quiet", "steps/sparsify.py", "(total.held[:, 0] == 0) & (total.held[:, 1] > 0)", "(total.held[:, 0] == 0) & (total.held[:, 1] < 0)", "tests/test_sparsify.py"),
    Mutant("chunks near the patch left out", PATCH, "((size - 1) / 2 + 2)", "((size - 1) / 2 - 8)", "tests/test_patches.py"),
    Mutant("padding as background has no group", PATCH, "            if padding_is_background:", "            if False:", "tests/test_patches.py"),
    Mutant("a flip keeps what is annotated", "patches.py", "label, rows = mirrored_labels(label, partners), mirrored_rows(rows, partners)", "label = mirrored_labels(label, partners)", "tests/test_patches.py"),
    Mutant("every flip swaps sides", "patches.py", "flip.axes[0]", "any(flip.axes)", "tests/test_patches.py"),
    Mutant("another case in the place of the frozen one", "patches.py", "if case.digest != facts.digest or", "if", "tests/test_patches.py"),
    Mutant("a case too many in memory", "store/cache.py", "self.used + size > self.budget", "self.used > self.budget", "tests/test_chunks.py"),
    Mutant("an index without its checksum believed", "store/chunks.py", "if google_crc32c.value(raw) !=", "if google_crc32c.value(raw) < 0 !=", "tests/test_chunks.py"),
    Mutant("a lost shard is an empty one", "store/chunks.py", "            if holds_something:\n", "            if not holds_something:\n", "tests/test_chunks.py"),
    Mutant("chunks that are not stored keep an earlier box", "kernels/blosc_box.py", "out[np.uint64(to + k)] = 0", "pass", "tests/test_chunks.py"),
    Mutant("a structure's first voxel only", "sampling/voxels.py", "first + int(generator.integers(stop - first))", "first", "tests/sampling/test_voxels.py"),
    Mutant("a structure's voxels begin elsewhere", "sampling/voxels.py", "foreground.index[first:stop]", "foreground.index[: stop - first]", "tests/sampling/test_voxels.py"),
    Mutant("intensity changes padding", "augmentation/apply.py", "return out if inside is None else out * inside[:, None]", "return out", "tests/augmentation/test_intensity.py"),
    Mutant("the same noise for all", "augmentation/apply.py", "manual_seed(seed)", "manual_seed(0)", "tests/augmentation/test_intensity.py"),
    Mutant("gamma of negative numbers", "augmentation/apply.py", "volume.clamp(0, 1) ** parameters.gamma", "(volume**parameters.gamma).clamp(0, 1)", "tests/augmentation/test_intensity.py"),
    Mutant("a device's label not the nearest", "device_patches.py", "low + (w >= 0.5)", "low + (w >= 1.0)", "tests/test_device_patches.py"),
    Mutant("weights drawn as if all were one", SAMPLER, "target = reached[first] + generator.random() * (reached[stop] - reached[first])", "target = generator.random() * reached[-1]", "tests/sampling"),
    Mutant("weights of 0 are drawn", SAMPLER, "kept &= of_child[codes[level]] > 0", "kept &= True", "tests/sampling"),
    Mutant("a slice beyond a run counts as held", "views.py", "held[first:stop, structure - 1] = True", "held[first : stop + 1, structure - 1] = True", "tests/sampling/test_candidates.py"),
    Mutant("slices of another axis", "case.py", "    return (_runs(x), _runs(y), _runs(z))", "    return (_runs(y), _runs(x), _runs(z))", "tests/sampling/test_candidates.py"),
    Mutant("the index believes its old lines", "store/workspace.py", "if brief.stamp == stamps.get(case)}", "if case in stamps}", "tests/test_index.py"),
    Mutant("cases removed stay in the index", "store/workspace.py", "{case: brief for case, brief in known.items() if brief.stamp == stamps.get(case)}", "dict(known)", "tests/test_index.py"),
    Mutant("processes see the same patches", "config.py", "return range(rank * each, (rank + 1) * each)", "return range(each)", "tests/engine"),
    Mutant("workers share seeds", "sampling/stream.py", "counter = np.array([0, t, 0, 0], dtype=np.uint64)", "counter = np.array([0, t % 4, 0, 0], dtype=np.uint64)", "tests/sampling"),
    Mutant("accumulated gradients are summed", "engine/fit.py", "state.scaler.scale(parts.total / len(share.parts))", "state.scaler.scale(parts.total)", "tests/engine/test_training.py"),
    Mutant("resume forgets the average", "engine/state.py", "                self.average.module.load_state_dict(averaged)\n", "", "tests/engine/test_training.py"),
    Mutant("best is the last", "engine/fit.py", "score > state.best.score", "True", "tests/engine/test_training.py"),
    Mutant("validation on test cases", "training_set.py", 'run.data.keys("val")', 'run.data.keys("test")', "tests/engine/test_training.py"),
    Mutant("clipping before the norm is told", "engine/fit.py", "    if config.clip_gradient_norm > 0:\n", "    if config.clip_gradient_norm > 1:\n", "tests/engine/test_training.py"),
    Mutant("a broken step is taken all the same", "engine/fit.py", "if not (finite and math.isfinite(loss)) and (finite or not _may_overflow(state.scaler)):", "if False:", "tests/engine/test_training.py"),
    Mutant("batches out of order", "engine/loader.py", "yield self._result_of(waiting.pop(0))", "yield self._result_of(waiting.pop())", "tests/engine/test_loader.py"),
    Mutant("the ramp is forgotten", "engine/fit.py", "    ramp = config.entropy_factor_at(step)\n", "    ramp = 1.0\n", "tests/test_train.py tests/engine/test_training.py"),
    Mutant("learning rate of the step before", "engine/fit.py", "config.learning_rate_at(state.step)", "config.learning_rate_at(max(0, state.step - 1))", "tests/test_train.py tests/engine/test_training.py"),
    Mutant("structures annotated from the card after all", "runs.py", "Annotation(shown.rows & held_structures(shown, brief.voxel_counts(), occupied), shown.slices)", "shown", "tests/test_training_set.py"),
    Mutant("method: the ignore label learns background everywhere", "methods/ignore.py", "batch.annotated.all(dim=2)", "batch.annotated.any(dim=2)", "tests/methods/test_losses.py"),
    Mutant("method: naive background leaves out what nobody annotated", "methods/background.py", "batch.group >= 0", "batch.group >= 1", "tests/methods/test_losses.py"),
    Mutant("method: exclusion of annotated structures", "methods/marginal.py", "unknown = ~known & known.any(dim=2, keepdim=True)", "unknown = known & known.any(dim=2, keepdim=True)", "tests/methods/test_losses.py"),
    Mutant("method: exclusion over the whole scan", "methods/marginal.py", "size = voxels[:, :, 0] * known.any(dim=2)", "size = voxels[:, :, 0] * 1", "tests/methods/test_losses.py"),
    Mutant("method: exclusion without its logarithm", "methods/marginal.py", "of_structure = overlap + logs / voxels.clamp(min=1)", "of_structure = overlap", "tests/methods/test_losses.py"),
    Mutant("method: sigmoid learns from unannotated structures", "losses/binary.py", "    return rows.gather(2, slot)\n", "    return rows.gather(2, slot) | True\n", "tests/methods/test_losses.py"),
    Mutant("method: binary dice smooth above the line as published", "losses/binary.py", "2 * sums.true_positive + (DICE_EPS if smooth == \"both\" else 0.0)", "2 * sums.true_positive + DICE_EPS", "tests/methods/test_losses.py"),
    Mutant("method: cross-entropy over all voxels", "losses/binary.py", "functional.softplus(x) * weight - x * there", "functional.softplus(x) - x * there", "tests/methods/test_losses.py"),
    Mutant("method: the biases of a head before its weights", "methods/dynamic.py", "PARTS = (CHANNELS * CHANNELS, CHANNELS * CHANNELS, CHANNELS, CHANNELS, CHANNELS, 1)", "PARTS = (CHANNELS, CHANNELS * CHANNELS, CHANNELS, CHANNELS * CHANNELS, CHANNELS, 1)", "tests/methods/test_dynamic.py"),
    Mutant("method: every structure's head learns", "methods/dynamic.py", "    there = counted.any(dim=1).nonzero()[:, 0]\n", "    there = torch.arange(len(counted))\n", "tests/methods/test_dynamic.py"),
    Mutant("method: the same structure in every example", "methods/dynamic.py", "manual_seed(number)", "manual_seed(0)", "tests/methods/test_dynamic.py"),
    Mutant("method: a chunk's structures in another's place", "methods/dynamic.py", "        yield slice(first, first + size)\n", "        yield slice(0, min(size, tasks - first))\n", "tests/methods/test_dynamic.py"),
    Mutant("method: heads that ignore the structure", "methods/dodnet.py", "of_task = tasks.to(pooled.dtype).expand", "of_task = (0 * tasks).to(pooled.dtype).expand", "tests/methods/test_dynamic.py"),
    Mutant("method: published rows in our order", "methods/text_embeddings.py", "return matrix[[_PUBLISHED[name] for name in structures]]", "return matrix[: len(structures)]", "tests/methods/test_text_embeddings.py"),
    Mutant("method: a label in another head's numbers", "methods/multi_head.py", "torch.arange(1, len(ids) + 1, dtype", "torch.arange(len(ids), dtype", "tests/methods/test_multi_head.py"),
    Mutant("method: heads summed, not averaged", "methods/multi_head.py", "total / heads.clamp(min=1)[:, None, None, None]", "total", "tests/methods/test_multi_head.py"),
    Mutant("method: unused heads without a gradient", "methods/multi_head.py", "found.append(OwnLogits(logits + nothing,", "found.append(OwnLogits(logits,", "tests/methods/test_contract.py"),
    Mutant("method: background beats every structure", "methods/parts.py", "torch.zeros_like(logits[:, :1])", "torch.full_like(logits[:, :1], 9.0)", "tests/methods"),
    Mutant("method: a pseudo label over a drawn one", "methods/pseudo_label.py", "np.where(drawn, label, np.where(sure, best, UNKNOWN_LABEL))", "np.where(sure, best, UNKNOWN_LABEL)", "tests/methods/test_pseudo_label.py"),
    Mutant("method: pseudo labels of structures that were looked for", "methods/pseudo_label.py", "better = unknown & (scores[structure] > highest)", "better = scores[structure] > highest", "tests/methods/test_pseudo_label.py"),
    Mutant("method: unsure pseudo labels are taken", "methods/pseudo_label.py", "    sure |= known ==", "    sure |= known >", "tests/methods/test_pseudo_label.py"),
    Mutant("method: the source of the first example for all", "engine/feeding.py", "self._sources.get(case.partition(\"/\")[0], -1) for case in batch.cases", "self._sources.get(batch.cases[0].partition(\"/\")[0], -1) for case in batch.cases", "tests/engine/test_methods.py"),
    Mutant("method: unannotated cases are drawn", "training_set.py", "return annotation.has_annotation or not METHODS[run.config.method].skips_unannotated", "return True", "tests/engine/test_methods.py"),
    Mutant("method: deep levels weigh the same", "methods/deep_supervision.py", "[0.5**level for level in", "[1.0 for level in", "tests/methods/test_deep_supervision.py"),
    Mutant("the doubled steps are forgotten", "experiments/options.py", "self.scale * experiment.steps_factor", "self.scale", "tests/test_experiments.py"),
    Mutant("--set overrules what a row is about", "experiments/options.py", "{**common, **scaled, **own, **given}", "{**own, **scaled, **common, **given}", "tests/test_experiments.py"),
    Mutant("validation is not scaled", "experiments/options.py", '_scaled(steps["validate_every"], self.scale)', 'steps["validate_every"]', "tests/test_experiments.py"),
    Mutant("Swin's patch for any network", "experiments/options.py", 'self.preset == PAPER and self.network in (None, own.get("network"))', "self.preset == PAPER", "tests/test_experiments.py"),
    Mutant("a method's setting for all methods", "experiments/options.py", "return key not in OWN_SETTINGS or key in METHODS[method].settings", "return True", "tests/test_experiments.py"),
    Mutant("the paper's doubled steps count as a difference", "experiments/options.py", '_scaled(reference["steps"], experiment.steps_factor)', 'reference["steps"]', "tests/test_experiments.py"),
    Mutant("seeds of any number have one name", "experiments/options.py", "if self.seeds != (0,) else []", "if len(self.seeds) > 1 else []", "tests/test_experiments.py"),
    Mutant("average's deviation is that of the means", "experiments/results.py", "if row is None or column.structure != AVERAGE:", "if True:", "tests/test_experiments.py"),
    Mutant("deviations of seeds are averaged", "experiments/results.py", "float(np.sqrt(np.mean(np.square(stds))))", "float(np.mean(stds))", "tests/test_experiments.py"),
    Mutant("only the first seed counts", "experiments/results.py", "float(np.mean(numbers)) if numbers else None", "numbers[0] if numbers else None", "tests/test_experiments.py"),
    Mutant("seeds may lack cases", "experiments/results.py", "if len(found) != len(scores) or len(numbers) not in (0, len(scores)):", "if len(numbers) not in (0, len(found)):", "tests/test_experiments.py"),
    Mutant("a part of the grid takes too many rows", "experiments/page.py", ".width() <= width\n        ]", ".width() <= 2 * width\n        ]", "tests/test_experiments.py"),
    Mutant("a misprint is not told", "experiments/notes.py", "for text in misprints if text]", "for text in misprints if not text]", "tests/test_experiments.py"),
    Mutant("phantoms pass for patients", "experiments/notes.py", "    if ground.phantoms:\n", "    if not ground.phantoms:\n", "tests/test_experiments.py"),
    Mutant("one training under two names is not told", "experiments/notes.py", "if len(names) > 1 and len(set(names)) > 1", "if len(names) > 2", "tests/test_experiments.py"),
    Mutant("a cell filled twice", "experiments/model.py", "if other != experiment.id:", "if False:", "tests/test_experiments.py"),
    Mutant("an empty cell passes", "experiments/model.py", "if (row, title) not in filled:", "if False:", "tests/test_experiments.py"),
    Mutant("scored on the run's own sources only", "steps/reproduce.py", "replace(run, data=data)", "run", "tests/test_reproduce.py"),
    Mutant("rows not asked for are trained", "steps/reproduce.py", "if experiment.id not in chosen and not stand.finished:", "if False:", "tests/test_reproduce.py"),
    Mutant("finished on other cases counts as finished", "steps/reproduce.py", "return run if run.data.cases == cases else None", "return run", "tests/test_reproduce.py"),
    Mutant("a run on other cases goes on", "steps/reproduce.py", "if not new and run.data != freeze(workspace, config):", "if False:", "tests/test_reproduce.py"),
    Mutant("an untrained run is scored", "steps/reproduce.py", 'if new or run.status != "finished":', "if False:", "tests/test_reproduce.py"),
    Mutant("missing sources are passed over", "steps/reproduce.py", "if lacking and not self.options.sources_at_hand:", "if False:", "tests/test_reproduce.py"),
    Mutant("a failing row ends all", "steps/reproduce.py", "except (RunError, ConfigError) as error:", "except ZeroDivisionError as error:", "tests/test_reproduce.py"),
    Mutant("the table is written at the end only", "steps/reproduce.py", "        page = stage.page(results)\n        files = _write(workspace, study, options, page)\n    failed", "    page = stage.page(results)\n    files = _write(workspace, study, options, page)\n    failed", "tests/test_reproduce.py"),
    Mutant("a left-out row is status 0", "cli/reproduce.py", "        raise typer.Exit(1)\n", "", "tests/test_reproduce.py"),
    Mutant("processes speak on standard output", "cli/reproduce.py", "    os.dup2(2, 1)\n", "", "tests/test_reproduce.py"),
    Mutant("mednext forgets a skip", "networks/mednext.py", "x = run(up, x, checkpointing=self.checkpointing) + skip", "x = run(up, x, checkpointing=self.checkpointing)", "tests/networks/test_monai.py -k mednext_s"),
    Mutant("swin_unetr does not normalise its maps", "networks/swin_unetr.py", "normalize=True", "normalize=False", "tests/networks/test_monai.py -k swin"),
    Mutant("unetpp reads the column's first node", "networks/unetpp.py", "made[level + 1][len(made[level]) - 1]", "made[level + 1][0]", "tests/networks/test_monai.py -k unetpp"),
    Mutant("segresnet ends without its norm", "networks/segresnet.py", "net.conv_final[:2]", "net.conv_final[1:2]", "tests/networks/test_monai.py -k segresnet"),
    Mutant("deep logits skip a level", "networks/dynunet.py", "levels[1:], strict=False", "levels[2:], strict=False", "tests/networks/test_contract.py -k deep_logits"),
    Mutant("deep logits are blurred", "networks/dynunet.py", "functional.interpolate(logits, x.shape[2:])", 'functional.interpolate(logits, x.shape[2:], mode="trilinear")', "tests/networks/test_monai.py -k deep_logits"),
    Mutant("unetr taps one layer late", "networks/unetr.py", "TAPS = (3, 6, 9)", "TAPS = (4, 7, 10)", "tests/networks/test_monai.py -k unetr"),
    Mutant("unetr without positions", "networks/unetr.py", "embedded.flatten(2).mT + self.positions(tuple(grid))", "embedded.flatten(2).mT", "tests/networks/test_monai.py -k unetr"),
    Mutant("unused norms stay", "networks/monai_transformer.py", "layer.norm_cross_attn = nn.Identity()", "pass", "tests/networks/test_contract.py -k parameter_learns"),
    Mutant("tokens without the last norm", "networks/transunet3d_nnunet.py", "self.norm(tokens).mT", "tokens.mT", "tests/networks/test_monai.py -k vit"),
    Mutant("checkpointing does nothing", "networks/checkpointing.py", "if checkpointing and torch.is_grad_enabled():", "if False:", "tests/networks/test_contract.py -k checkpointing"),
    Mutant("a decoder takes the maps away", "networks/unet_small.py", "        *skips, last = maps\n", "        last = maps.pop()\n        skips = maps\n", "tests/networks/test_contract.py -k parts_make"),
    Mutant("one deepest voxel passes", "networks/contract.py", " or all(side == divisor for side in sides)", "", "tests/networks/test_contract.py -k refuses_sides"),
    Mutant("a new head is the head", "networks/adapted.py", "return self.make_head(out_channels)", "return self.head", "tests/networks/test_contract.py -k new_head"),
    Mutant("deep logits keep the padding", "networks/padded.py", "tuple(crop_to(logits, x) for logits in network.deep_logits(self.pad(x)))", "network.deep_logits(self.pad(x))", "tests/networks/test_contract.py -k deep_logits"),
    Mutant("raw weights at prediction", "networks/standardised.py", "nn.Parameter(self.standardised_weight()), self.bias", "nn.Parameter(self.weight), self.bias", "tests/networks/test_transunet3d.py -k fused"),
    Mutant("the fused bias forgets the head's", "networks/transunet3d.py", '_bias(last)) + _bias(head)', '_bias(last))', "tests/networks/test_transunet3d.py -k fused"),
    Mutant("features kept are fused all the same", "networks/transunet3d.py", "if not keep_features:", "if True:", "tests/networks/test_transunet3d.py -k fused"),
    Mutant('a signal of SLURM ends the launcher alone', 'cli/_launch.py', '_SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"', '_SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT"', 'tests/engine/test_stopping.py -k signals_save_and_stop'),
    Mutant('processes outlive their launcher', 'cli/_launch.py', '    os.kill(os.getpid(), signal.SIGTERM)\n', '    return\n', 'tests/engine/test_stopping.py -k launcher_was_killed'),
    Mutant('a chunk read in part is decoded', 'kernels/blosc_box.py', 'np.int64(offset)) != length:', 'np.int64(offset)) < 0:', 'tests/test_chunks.py -k gone_is_not'),
    Mutant('float16 never gives up', 'engine/fit.py', 'scaler.get_scale() >= 1', 'scaler.get_scale() >= 0', 'tests/engine/test_refused.py -k never_become'),
    Mutant('the average takes steps that were left out', 'engine/fit.py', 'state.average is not None and finite:', 'state.average is not None:', 'tests/engine/test_refused.py -k left_out'),
    Mutant('a validation that was cut short is forgotten', 'engine/fit.py', '        # One that a signal cut short.\n        _validate_if_due(state, validate, config, asked_to_stop, ranks, keeper=keeper, watcher=watcher)\n', '', 'tests/engine/test_stopping.py -k within_a_validation'),
    Mutant('nothing is saved before a validation', 'engine/fit.py', '(due or stop or _validation_is_due(state, config))', '(due or stop)', 'tests/engine/test_stopping.py -k within_a_validation'),
    Mutant('a validation does not look at signals', 'engine/validation.py', '        if asked_to_stop():\n', '        if False:\n', 'tests/engine/test_stopping.py -k within_a_validation'),
    Mutant('a process validates on alone', 'engine/validation.py', 'if any(one.stopped for one in told):', 'if told[ranks.place.rank].stopped:', 'tests/engine/test_stopping.py -k together'),
    Mutant('a refused run is written all the same', 'runs.py', '        if check is not None:\n            check(run)\n', '', 'tests/engine/test_refused.py -k folder_behind'),
    Mutant('the best of no validation is the last', 'engine/files.py', 'if state.best is None or not self.best.is_file():', 'if False:', 'tests/engine/test_refused.py -k never_the_best'),
    Mutant('the card reports the best beside the last weights', 'engine/files.py', 'step, validation = state.usable().state_dict(), state.step, state.validated', 'step, validation = state.usable().state_dict(), state.step, state.best', 'tests/engine/test_training.py -k card_of_the_last'),
    Mutant("a card forgets the first weights' first weights", 'runs.py', 'sources=known.sources, started_from=known.started_from)', 'sources=known.sources)', 'tests/engine/test_training.py -k card_tells'),
    Mutant('labels that a view hides count', 'runs.py', 'occupied = occupied_slices(workspace, case) if shown.slices else {}\n    return Annotation(shown.rows & held_structures(shown, brief.voxel_counts(), occupied), shown.slices)', 'return Annotation(shown.rows & (brief.voxel_counts() > 0), shown.slices)', 'tests/test_training_set.py -k hides'),
    Mutant("an option's preset gives way to the file's", 'cli/_training.py', 'preset or str(of_file)', 'str(of_file)', 'tests/test_cli.py -k preset_is_the_options'),
    Mutant("one entry replaces the file's table", 'cli/_training.py', 'parse_settings(settings, from_file)', 'parse_settings(settings)', 'tests/test_cli.py -k preset_is_the_options'),
    Mutant('steps before a validation are not logged', 'engine/journal.py', '        self._since = now[0] - self._spent[0], now[1] - self._spent[1]\n', '        self._begin_line()\n', 'tests/engine/test_training.py -k lost_between'),
    Mutant('bfloat16 on any patch', 'engine/checks.py', 'if config.patch[0] <= side:', 'if config.patch[0] < side:', 'tests/engine/test_refused.py -k long_along_x'),
    Mutant("surfaces end at the image's border", 'kernels/surface.py', '    for a in range(na + 1):\n', '    for a in range(1, na):\n', 'tests/metrics/test_surface.py -k brute_force'),
    Mutant('a way that is not the nearest', 'metrics/surface.py', 'near = near[np.argsort(lengths[near], kind="stable")]', 'near = near[np.argsort(-lengths[near], kind="stable")]', 'tests/metrics/test_surface.py -k brute_force'),
    Mutant('far cells do not count', 'metrics/surface.py', '        if len(cells) == 0:\n', '        if len(cells) >= 0:\n', 'tests/metrics/test_surface.py -k far'),
    Mutant('far cells beyond the memory are lost', 'metrics/surface.py', '            if n_far <= far.size:\n', '            n_far = min(n_far, far.size)\n            if n_far <= far.size:\n', 'tests/metrics/test_surface.py -k many_far'),
    Mutant('spacing in another order', 'metrics/surface.py', 'x, y, z = spacing[list(order)].tolist()', 'x, y, z = spacing.tolist()', 'tests/metrics/test_surface.py'),
    Mutant('distances weigh alike', 'metrics/surface.py', 'part = np.cumsum(self.areas_mm2) / self.areas_mm2.sum()', 'part = np.cumsum(self.areas_mm2 > 0) / (self.areas_mm2 > 0).sum()', 'tests/metrics/test_surface.py'),
    Mutant('surfaces of sparse references count', 'metrics/comparison.py', 'annotation.rows[groups].all(axis=0)', 'annotation.rows[groups].any(axis=0)', 'tests/metrics/test_surface.py -k known_in_part'),
    Mutant('surfaces beside unknown voxels count', 'metrics/comparison.py', '        if self.counts.unknown:\n', '        if False:\n', 'tests/metrics/test_surface.py -k known_in_part'),
    Mutant('Holm without the running maximum', 'metrics/paired.py', 'largest = max(largest, min(1.0, p * (len(order) - rank)))', 'largest = min(1.0, p * (len(order) - rank))', 'tests/metrics/test_paired.py -k holm'),
    Mutant('Bonferroni', 'metrics/paired.py', 'p * (len(order) - rank)', 'p * len(order)', 'tests/metrics/test_paired.py -k holm'),
    Mutant('five pairs are tested', 'metrics/paired.py', 'FEWEST_PAIRS = 6', 'FEWEST_PAIRS = 5', 'tests/metrics/test_paired.py -k five'),
    Mutant('resampled the wrong way', 'steps/evaluate_folders.py', 'np.linalg.inv(grid.affine) @ target.affine', 'np.linalg.inv(target.affine) @ grid.affine', 'tests/test_eval_folders.py -k resampl'),
    Mutant("a mask of each structure is of all structures", "exporters/nifti.py", "(label == i).view(np.uint8)", "(label > 0).view(np.uint8)", "tests/exporters/test_itk.py"),
    Mutant("NRRD in RAS called LPS", "exporters/itk.py", "image.SetOrigin((_RAS_TO_LPS * affine[:3, 3]).tolist())", "image.SetOrigin(affine[:3, 3].tolist())", "tests/exporters/test_itk.py"),
    Mutant("all of Slicer's label values are 1", "exporters/itk.py", "\"LabelValue\": str(i)", "\"LabelValue\": \"1\"", "tests/exporters/test_itk.py"),
    Mutant("segments numbered in the label otherwise than described", "exporters/dicom_seg.py", "    table[list(numbers)] = list(numbers.values())", "    table[list(numbers)] = list(numbers)", "tests/exporters/test_dicom_seg.py"),
    Mutant("frames of a multi-frame series in the label's order", "exporters/dicom_seg.py", "        ordered[(one.frame or 1) - 1] = plane", "        ordered[slices.index(one)] = plane", "tests/exporters/test_dicom_seg.py"),
    Mutant("rows of a segmentation upside down", "exporters/dicom_seg.py", "label.transpose(2, 1, 0)", "label.transpose(2, 1, 0)[:, ::-1]", "tests/exporters/test_dicom_seg.py"),
    Mutant("right and left without a code", "exporters/dicom_seg.py", "    if code.side is not None:", "    if code.is_private:", "tests/exporters/test_dicom_seg.py"),
    Mutant("images matched by the order of their files", "exporters/dicom_source.py", "            places.setdefault(_place(one, shape, affine, folder), one)", "            places.setdefault(len(places) + 0 * _place(one, shape, affine, folder), one)", "tests/exporters/test_dicom_seg.py"),
    Mutant("an image off its slice taken all the same", "exporters/dicom_source.py", "    if not 0 <= k < shape[2] or off > max(OFF_SLICES * spacing[2], _OFF_MM):", "    if not 0 <= k < shape[2]:", "tests/exporters/test_dicom_seg.py"),
    Mutant("a lost image not noticed", "exporters/dicom_source.py", "        if missing:", "        if len(missing) > shape[2]:", "tests/exporters/test_dicom_seg.py"),
    Mutant("values that break rules copied", "exporters/dicom_source.py", "validation_mode=RAISE)", "validation_mode=0)", "tests/exporters/test_dicom_seg.py"),
    Mutant("outlines half a voxel off", "exporters/contours.py", "rings = [points[a : b - 1] - 1 for", "rings = [points[a : b - 1] - 0.5 for", "tests/exporters/test_rtstruct.py"),
    Mutant("holes not joined", "exporters/contours.py", "_joined(rings[0], rings[1:])", "_joined(rings[0], [])", "tests/exporters/test_rtstruct.py"),
    Mutant("a hole joined to the farthest line above", "exporters/contours.py", "line[:, 1], -np.inf)\n    at = int(height.argmax())", "line[:, 1], np.inf)\n    at = int(height.argmin())", "tests/exporters/test_rtstruct.py"),
    Mutant("spacing of rows and columns exchanged in outlines", "exporters/dicom_rtstruct.py", "one.spacing_mm[::-1, None]", "one.spacing_mm[:, None]", "tests/exporters/test_rtstruct.py"),
    Mutant("outlines in the corner of the box of their structure", "exporters/dicom_rtstruct.py", "polygon + first[:2]", "polygon", "tests/exporters/test_rtstruct.py"),
    Mutant("a structure's box on the axes of memory", "kernels/label_statistics.py", "first[:, axis], last[:, axis] = (", "first[:, i], last[:, i] = (", "tests/exporters/test_statistics.py"),
    Mutant("squares of large intensities summed", "kernels/label_statistics.py", "                    sums[v, 0] = x\n", "                    sums[v, 0] = 0.0\n", "tests/exporters/test_statistics.py"),
    Mutant("the last slice is no border", "exporters/statistics.py", "if last[axis] == shape[axis] - 1 else", "if last[axis] == shape[axis] else", "tests/exporters/test_statistics.py"),
    Mutant("borders named by the other side", "exporters/statistics.py", "        sides += [_SIDES[_OPPOSITE[code]]] if first", "        sides += [_SIDES[code]] if first", "tests/exporters/test_statistics.py"),
    Mutant("a long private code cut without a mark", "exporters/codes.py", "        value = f\"{value[: _LONGEST_VALUE - 7]}_{mark}\"", "        value = value[:_LONGEST_VALUE]", "tests/exporters/test_formats.py"),
    Mutant("the plan loads torch first", "cli/train.py", "    if talks:\n        _refuse_early(", "    import torch\n\n    if talks:\n        _refuse_early(", "tests/test_plan.py"),
    Mutant("weights are checked with torch", "steps/plan.py", "        open_sampler(workspace, run)\n\n\ndef plan_training(", "        pass\n\n\ndef plan_training(", "tests/test_plan.py"),
    Mutant("parts of memory rounded each by itself", "cli/train.py", "int(value) for name, value in exact.items()", "round(value) for name, value in exact.items()", "tests/test_plan.py"),
    Mutant("a repeated command without its flags", "cli/_training.py", "words += [flag] if isinstance(one, bool) else [flag, str(one)]", "words += [flag, str(one)]", "tests/test_plan.py"),
    Mutant("a repeated command forgets its last list item", "cli/_training.py", "for one in value if isinstance(value, list | tuple) else [value]:", "for one in value[:1] if isinstance(value, list | tuple) else [value]:", "tests/test_plan.py"),
    Mutant("a structure not learnt by its title", "steps/plan.py", "name = run.anatomy.structure(structure).name", "name = run.anatomy.structure(structure).title", "tests/test_plan.py tests/test_runs.py"),
    Mutant("validation from five patients on", "steps/plan.py", "SPLIT_NEEDS = 6", "SPLIT_NEEDS = 5", "tests/test_plan.py"),
    Mutant("what labels do not show counts as annotated in the plan", "steps/plan.py", "annotation = annotation_from_labels(workspace, brief, annotation)", "annotation_from_labels(workspace, brief, annotation)", "tests/test_plan.py"),
    Mutant("random has structures that it never draws", "steps/sample.py", "[names[i] for i in sampler.skipped] if draws_structures else []", "[names[i] for i in sampler.skipped]", "tests/test_plan.py"),
    Mutant("every preset looks like the paper's", "cli/list_.py", "values = {name: _flat(make_config(name)) for name in PRESETS}", "values = {name: _flat(make_config(\"paper\")) for name in PRESETS}", "tests/test_list.py"),
    Mutant("only the first preset's device is tried", "cli/_training.py", "    if wrong is not None and not made:", "    if wrong is not None:", "tests/test_plan.py"),
    Mutant("a wrapped line of a view without its indent", "cli/_views.py", "subsequent_indent=\"    \"", "subsequent_indent=\"\"", "tests/test_plan.py"),
    Mutant("a bound told as the other one", "value_errors.py", "\"less_than_equal\": \"at most {le}\"", "\"less_than_equal\": \"less than {le}\"", "tests/test_value_errors.py"),
    Mutant("windows: means not divided by their weights", "inference/stitch.py", "tile.scores.div_(tile.weights)", "tile.scores", "tests/test_inference.py"),
    Mutant("windows: a part is done after its first window", "inference/windows.py", "Part(slice(a, b), max(i for", "Part(slice(a, b), min(i for", "tests/test_inference.py"),
    Mutant("windows: boxes do not overlap by a voxel", "inference/restoring.py", "grown = [slice(max(side.start - 1, 0), side.stop) for side in box]", "grown = list(box)", "tests/test_inference.py"),
    Mutant("windows: layers dropped too early", "inference/restoring.py", "            if all(others):", "            if any(others):", "tests/test_inference.py"),
    Mutant("windows: a view shifted the other way", "inference/views.py", "+ round(shift * patch)", "- round(shift * patch)", "tests/test_inference.py"),
    Mutant("windows: views need not stay within reach", "inference/sliding.py", "reach_of(settings.views, settings.patch_shape)", "0", "tests/test_inference.py"),
    Mutant("restored blocks all at the same row", "kernels/restore.py", "j = (starts[1][first[1] + y], starts[1][first[1] + y + 1])", "j = (starts[1][y], starts[1][y + 1])", "tests/test_inference.py"),
    Mutant("uncertainty without its largest value", "inference/restoring.py", ".div_(math.log(len(scores)))", "", "tests/test_predict_folder.py"),
    Mutant("the smallest piece is kept", "postprocess.py", "int(voxels.argmax())", "int(voxels.argmin())", "tests/test_postprocess.py"),
    Mutant("holes swallow other structures", "postprocess.py", "ndimage.binary_fill_holes(part == structure) & (part == 0)", "ndimage.binary_fill_holes(part == structure)", "tests/test_postprocess.py"),
    Mutant("predictions by other weights count as done", "steps/predict_folder.py", 'facts["header"] == header', "True", "tests/test_predict_folder.py"),
    Mutant("a scan that changed counts as done", "steps/predict_folder.py", 'facts.get("sha256") != digest or ', "", "tests/test_predict_folder.py"),
)  # fmt: skip


def survives(mutant: Mutant) -> bool:
    """Return whether all tests pass in spite of the bug."""
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        for part in ("src", "tests", "registry", "experiments"):
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__", "*.nbi", "*.nbc"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        path = copy / "src" / "abdoseg" / mutant.file
        text = path.read_text(encoding="utf-8")
        if mutant.old not in text:
            raise SystemExit(f"{mutant.name}: {mutant.file} no longer holds {mutant.old!r}; renew the mutant")
        path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *mutant.tests.split()]
        environment = {**os.environ, "PYTHONPATH": str(copy / "src"), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1):
            raise SystemExit(f"{mutant.name}: the tests could not run\n{done.stdout}\n{done.stderr}")
        return done.returncode == 0


def main() -> int:
    """Try all mutants, or those whose names are given; return 1 if one survives."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    names = parser.parse_args().names
    chosen = [m for m in MUTANTS if not names or m.name in names]
    survivors = []
    for mutant in chosen:
        alive = survives(mutant)
        sys.stdout.write(f"{'SURVIVES' if alive else 'killed  '}  {mutant.name}\n")
        sys.stdout.flush()
        survivors += [mutant.name] if alive else []
    sys.stdout.write(f"{len(chosen) - len(survivors)} of {len(chosen)} killed\n")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
