"""Everything here runs real detectron2; docs/detectron2.md says how to install it."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

if importlib.util.find_spec("detectron2") is None:
    pytest.skip("detectron2 is not installed; docs/detectron2.md has the lines", allow_module_level=True)

from segearth.integrations.detectron2.catalog import (  # before detectron2
    QuestionMapper,
    dataset_dicts,
    register_dataset,
)
from segearth.integrations.detectron2.evaluator import QuestionEvaluator
from segearth.integrations.detectron2.meta_arch import (
    SegEarthMetaArch,
    add_segearth_config,
    answer_entries,
    as_output,
    group_by_image,
    to_instances,
)

# isort: split
import detectron2
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyConfig, get_cfg, instantiate
from detectron2.data import (
    DatasetCatalog,
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.data.transforms import FixedSizeCrop, RandomFlip
from detectron2.engine import SimpleTrainer, default_argument_parser
from detectron2.evaluation import inference_on_dataset
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, BoxMode
from detectron2.utils.visualizer import Visualizer

from segearth.config import LossConfig
from segearth.data.feed.loading import Collator, frame_example
from segearth.data.registry import build_dataset
from segearth.errors import DatasetError, UnknownNameError
from segearth.evaluation.evaluator import evaluate
from segearth.inference.predictor import Predictor
from segearth.losses.criterion import Criterion
from segearth.structures import Boxes, Choices, Question, Sample, Segmentation, Text
from segearth.utils.files import configs_dir
from segearth.zoo.lookup import build_from_spec

VAL = "segearth_aerial_mini_val"
DOCS = Path(__file__).parents[3] / "docs"
CONFIG = configs_dir() / "detectron2" / "segearth_debug_aerial_mini.py"


@pytest.fixture(scope="module")
def dicts():
    register_dataset("aerial_mini", splits=["val"])
    return DatasetCatalog.get(VAL)


@pytest.fixture(scope="module")
def val():
    return build_dataset("aerial_mini", None, "val")


@pytest.fixture(scope="module")
def trained(dicts):
    """A model after a few steps of detectron2's trainer on four questions, and the loss at each step."""
    torch.manual_seed(0)
    model = SegEarthMetaArch(build_from_spec({"name": "segearth_debug"}).eval(), LossConfig(num_points=1024))
    chosen = [entry for entry in dicts if entry["annotations"]][:4]
    loader = build_detection_train_loader(chosen, mapper=QuestionMapper(), total_batch_size=4, num_workers=0)
    history = []

    class Trainer(SimpleTrainer):
        def after_step(self):
            history.append(self.storage.latest()["total_loss"][0])
            super().after_step()

    Trainer(model.train(), loader, torch.optim.AdamW(model.parameters(), lr=1e-3)).train(0, 30)
    return model.eval(), history


def test_catalog_holds_every_question_once(dicts, val):
    questions = {q.id: q for sample in val for q in sample.questions}
    assert [entry["question_id"] for entry in dicts] == list(questions)
    for entry in dicts:
        question = questions[entry["question_id"]]
        assert (entry["question"], entry["task"], entry["kind"]) == (question.text, question.task, question.kind)
        assert len(entry["annotations"]) == question.mask.any()
        for annotation in entry["annotations"]:
            assert annotation["bbox_mode"] == BoxMode.XYXY_ABS
            box = BitMasks(torch.from_numpy(question.mask)[None]).get_bounding_boxes().tensor[0]
            assert annotation["bbox"] == box.tolist()
    assert MetadataCatalog.get(VAL).thing_classes == ["target"]
    assert MetadataCatalog.get(VAL).split == "val"


def test_questions_with_other_targets_than_masks_are_left_out(monkeypatch):
    class Mixed:
        def __len__(self):
            return 1

        def __iter__(self):
            image = np.zeros((4, 6, 3), np.uint8)
            yield Sample("a", image, [
                Question("find roofs", task="detection", target=Boxes(((0, 0, 2, 2),)), id="boxed"),
                Question("the roof", np.ones((4, 6), bool), id="masked"),
                Question("describe it", task="caption", target=Text(("a roof",)), id="described"),
                Question("which?", task="classification", target=Choices(("roof", "road"), ("roof",)), id="chosen"),
                Question("the road", id="unknown"),
            ])  # fmt: skip

    monkeypatch.setattr("segearth.integrations.detectron2.catalog.build_dataset", lambda *_, **__: Mixed())
    assert [entry["question_id"] for entry in dataset_dicts("mixed", None, "val")] == ["masked"]


def test_registering_reads_nothing_and_can_be_repeated(tmp_path, dicts):
    keys = register_dataset("refsegrs", tmp_path / "nowhere", ["train", "test"])
    assert keys == ["segearth_refsegrs_train", "segearth_refsegrs_test"]
    with pytest.raises(DatasetError, match="is missing under"):
        DatasetCatalog.get(keys[0])
    assert register_dataset("aerial_mini", splits=["val"], protocol="segearth_r1") == [VAL]
    first = DatasetCatalog.get(VAL)
    assert len(first) == len({entry["image_id"] for entry in dicts}) == len({entry["image_id"] for entry in first})
    assert register_dataset("aerial_mini", splits=["val"]) == [VAL]
    with pytest.raises(UnknownNameError, match="aerial_mini"):
        register_dataset("aerial_mino")


@pytest.mark.parametrize("name", ["aerial_mini", "synthetic"])  # images in files, and images that are made
def test_mapper_gives_back_image_and_masks(name):
    entries = iter(dataset_dicts(name, None, "val"))
    dataset = build_dataset(name, None, "val")
    for i in range(3):
        sample = dataset[i]
        for question in sample.questions:
            mapped = QuestionMapper()(next(entries))
            np.testing.assert_array_equal(mapped["image"].numpy().transpose(1, 2, 0), sample.image)
            np.testing.assert_array_equal(mapped["mask"].numpy(), question.mask)
            assert mapped["image"].dtype == torch.uint8 and mapped["mask"].dtype == torch.bool


def test_augmentation_moves_the_mask_along_but_spares_directions(dicts):
    flip = QuestionMapper([RandomFlip(prob=1.0)])
    entry = next(entry for entry in dicts if entry["annotations"])
    for question, turned in (("the forest", True), ("the forest in the west", False)):
        plain, mapped = QuestionMapper()(entry | {"question": question}), flip(entry | {"question": question})
        for key in ("image", "mask"):
            assert torch.equal(mapped[key], plain[key].flip(-1) if turned else plain[key])


def test_augmentation_that_pads_adds_nothing_to_the_mask(dicts):
    entry = next(entry for entry in dicts if entry["annotations"]) | {"question": "the forest"}
    plain, padded = (QuestionMapper(augmentations)(entry) for augmentations in ([], [FixedSizeCrop((600, 700))]))
    assert padded["image"].shape == (3, 600, 700) and padded["mask"].shape == (600, 700)
    assert padded["mask"].sum() == plain["mask"].sum()


def test_questions_of_an_image_share_its_vision_pass(dicts, monkeypatch):
    entries = [QuestionMapper()(dicts[i]) for i in (0, 10, 1)]
    assert dicts[0]["image_id"] == dicts[1]["image_id"] != dicts[10]["image_id"]
    assert group_by_image(entries) == [[0, 2], [1]]
    torch.manual_seed(0)
    model = SegEarthMetaArch(build_from_spec({"name": "segearth_debug"}).eval())
    seen = []
    encode = model.model.encode_image
    monkeypatch.setattr(model.model, "encode_image", lambda images: seen.append(len(images)) or encode(images))
    together = model.eval()(entries)
    assert seen == [1, 1]
    for entry, answer in zip(entries, together, strict=True):  # in the order asked
        assert model([entry])[0]["presence"] == pytest.approx(answer["presence"], abs=1e-5)
    seen.clear()
    model.train()(entries)
    assert seen == [2]


def test_losses_are_those_of_the_own_trainer(val, dicts):
    torch.manual_seed(0)
    model = SegEarthMetaArch(build_from_spec({"name": "segearth_debug"}).eval())
    config = LossConfig()
    own = model.model
    example = frame_example(val[0].image, val[0].questions[:2], model.model.image_transform)
    batch = Collator(own.prompt_encoder, with_answers=True)([example])
    own.train()
    torch.manual_seed(1)
    expected = Criterion(config)(own(batch), batch)
    torch.manual_seed(1)
    losses = model.train()([QuestionMapper()(dicts[0]), QuestionMapper()(dicts[1])])
    assert sum(losses.values()).item() == pytest.approx(expected.total.item(), rel=1e-5)
    assert losses["loss_dice"].item() == pytest.approx(5 * expected.dice.item(), rel=1e-5)
    assert losses["loss_text"].item() > 0


def test_images_of_different_frames_train_together(monkeypatch):
    torch.manual_seed(0)
    model = SegEarthMetaArch(build_from_spec({"name": "segearth_debug"}).eval()).train()
    sizes = [(64, 128), (128, 128), (64, 128)]
    images = [torch.full((3, *size), k, dtype=torch.uint8) for k, size in enumerate(sizes)]
    entries = [{"image": image, "mask": image[0] >= 0, "question": "roofs"} for image in images]
    seen = []
    encode = model.model.encode_image
    monkeypatch.setattr(model.model, "encode_image", lambda images: seen.append(tuple(images.shape)) or encode(images))
    monkeypatch.setattr("segearth.losses.criterion.point_dice", lambda logits, *_: logits.sum(-1) * 0 + 1)
    losses = model(entries)
    assert seen == [(2, 3, 64, 128), (1, 3, 128, 128)]
    depth = len(model.model.mask_decoder.layers) + 1
    assert losses["loss_dice"].item() == pytest.approx(5 * depth)  # the mean over questions, summed over depths


def test_losses_under_autocast_are_finite_and_reach_every_weight(dicts):
    torch.manual_seed(0)
    model = SegEarthMetaArch(build_from_spec({"name": "segearth_debug"}).eval()).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):  # what AMPTrainer does on a GPU
        losses = model([QuestionMapper()(dicts[0])])
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)


def test_training_without_a_mask_names_the_mapper(trained):
    model, _ = trained
    try:
        with pytest.raises(DatasetError, match="QuestionMapper"):
            model.train()([{"image": torch.zeros(3, 64, 64, dtype=torch.uint8), "question": "roofs"}])
    finally:
        model.eval()


def test_simple_trainer_lowers_the_loss(trained):
    _, history = trained
    assert len(history) == 30
    assert np.mean(history[-3:]) < 0.8 * np.mean(history[:3])


def test_checkpointer_gives_equal_answers(trained, dicts, tmp_path):
    model, _ = trained
    DetectionCheckpointer(model, str(tmp_path)).save("model_final")
    torch.manual_seed(5)
    other = SegEarthMetaArch(build_from_spec({"name": "segearth_debug"}).eval()).eval()
    entries = [QuestionMapper()(entry) for entry in dicts[:3]]
    before = model(entries)
    assert [a["presence"] for a in other(entries)] != [a["presence"] for a in before]
    DetectionCheckpointer(other).load(str(tmp_path / "model_final.pth"))
    for one, two in zip(before, other(entries), strict=True):
        assert one["presence"] == two["presence"]
        assert torch.equal(one["instances"].pred_masks, two["instances"].pred_masks)


@pytest.mark.parametrize("protocol", ["native", "segearth_r1"])
def test_evaluation_loop_gives_the_own_evaluators_numbers(trained, val, protocol):
    model, _ = trained
    expected = evaluate(Predictor(model.model), val, protocol=protocol, controls=False, limit=6, progress=False)
    count = len(expected.records)
    entries = dataset_dicts("aerial_mini", None, "val", protocol=protocol)[:count]
    loader = build_detection_test_loader(entries, mapper=QuestionMapper(), batch_size=5)
    evaluator = QuestionEvaluator(protocol)
    numbers = inference_on_dataset(model, loader, evaluator)["segearth"]
    assert sum(record.predicted_area > 0 for record in expected.records) > 3  # else there is nothing to compare
    for one, two in zip(sorted(evaluator.records, key=lambda r: r.id), expected.records, strict=True):
        for name in ("id", "image_id", "question", "kind", "source", "intersection", "union", "target_area"):
            assert getattr(one, name) == getattr(two, name)
        assert one.presence == pytest.approx(two.presence, abs=1e-5)
        assert one.score == pytest.approx(two.score, abs=1e-5)
    metrics = expected.metrics
    assert numbers["gIoU"] == metrics.giou and numbers["cIoU"] == metrics.ciou
    assert [numbers[f"Pr@{t}"] for t in (0.5, 0.6, 0.7, 0.8, 0.9)] == list(metrics.precision.values())
    assert numbers.get("N-acc") == metrics.n_acc and numbers.get("T-acc") == metrics.t_acc


def entry_of(target):
    """What the mapper makes of a question with this target, a boolean tensor ``(H, W)``."""
    return {
        "image_id": "1", "question_id": "a", "question": "roofs", "task": "reasoning", "kind": "class",
        "source": "here", "image": torch.zeros(3, *target.shape, dtype=torch.uint8), "mask": target,
    }  # fmt: skip


def test_evaluator_by_hand():
    target = torch.tensor([[True, True, False, False]])
    facts = entry_of(target)

    def answer(mask):
        return {"instances": to_instances(Segmentation("roofs", np.array(mask, bool), 0.5, any(mask[0]), 0.5))}

    evaluator = QuestionEvaluator()
    evaluator.reset()
    evaluator.process(
        [facts | {"question_id": "a"}, facts | {"question_id": "b"}],
        [answer([[0, 1, 1, 1]]), answer([[0, 0, 0, 0]])],
    )
    numbers = evaluator.evaluate()["segearth"]
    assert numbers["gIoU"] == (1 / 4 + 0) / 2
    assert numbers["cIoU"] == (1 + 0) / (4 + 2)
    assert numbers["T-acc"] == 0.5 and "N-acc" not in numbers
    assert [(r.task, r.kind, r.source) for r in evaluator.records] == [("reasoning", "class", "here")] * 2
    with pytest.raises(DatasetError, match="must have the same"):
        evaluator.process([facts], [answer([[0, 1, 1]])])


def test_evaluator_compares_in_the_frame_of_the_protocol():
    whole = np.ones((512, 1024), bool)  # lies in the middle half of the square frame
    answer = Segmentation("roofs", whole, 0.5, True, 0.5, frame_mask=np.ones((1024, 1024), bool))
    for protocol, giou in (("native", 1.0), ("segearth_r1", 0.5)):
        evaluator = QuestionEvaluator(protocol)
        evaluator.process([entry_of(torch.from_numpy(whole))], [as_output(answer)])
        assert evaluator.evaluate()["segearth"]["gIoU"] == giou
    with pytest.raises(UnknownNameError, match="native"):
        QuestionEvaluator("nativ")


def test_evaluator_takes_the_bare_instances_of_other_models():
    mask = np.array([[True, False]])
    instances = as_output(Segmentation("roofs", mask, 0.75, True, 0.9))["instances"]
    evaluator = QuestionEvaluator()
    evaluator.process([entry_of(torch.from_numpy(mask))], [{"instances": instances}])
    assert (evaluator.records[0].iou, evaluator.records[0].score, evaluator.records[0].presence) == (1, 0.75, 1)


def test_instances():
    mask = np.zeros((6, 8), bool)
    mask[1:3, 2:7] = True
    found = to_instances(Segmentation("roofs", mask, 0.75, True, 0.9))
    assert found.image_size == (6, 8) and len(found) == 1
    assert found.pred_boxes.tensor.tolist() == [[2, 1, 7, 3]]
    assert found.scores.tolist() == [0.75] and found.pred_classes.tolist() == [0]
    assert len(to_instances(Segmentation("roofs", np.zeros((6, 8), bool), 0.0, False, 0.1))) == 0


def test_visualiser_draws_the_answer(trained, dicts, tmp_path):
    model, _ = trained
    entry = QuestionMapper()(next(entry for entry in dicts if entry["annotations"]))
    instances = model([entry])[0]["instances"]
    assert len(instances) == 1
    instances.remove("pred_boxes")  # only the mask is drawn
    instances.remove("scores")
    image = entry["image"].permute(1, 2, 0).numpy()
    drawn = Visualizer(image, MetadataCatalog.get(VAL)).draw_instance_predictions(instances)
    drawn.save(str(tmp_path / "answer.png"))
    changed = np.abs(drawn.get_image().astype(int) - image).max(-1) > 8
    assert changed[instances.pred_masks[0].numpy()].mean() > 0.8
    target = Visualizer(image, MetadataCatalog.get(VAL)).draw_dataset_dict(dicts[0]).get_image()
    assert (target != image).any()


@pytest.fixture(scope="module")
def saved(trained, tmp_path_factory):
    """A folder written by the library itself, without detectron2."""
    folder = tmp_path_factory.mktemp("saved")
    trained[0].model.save_pretrained(folder)
    return folder


def test_lazy_config(trained, saved):
    config = LazyConfig.load(str(CONFIG))
    overrides = [f"model.model.spec.pretrained={saved}", "dataloader.test.num_workers=0"]
    config = LazyConfig.apply_overrides(config, overrides)
    config.dataloader.test.dataset.names = VAL
    model = instantiate(config.model)
    assert isinstance(model, SegEarthMetaArch) and model.criterion.config == LossConfig()
    schedule = instantiate(config.lr_multiplier)
    assert schedule(0.05) == pytest.approx(1, abs=0.02) and schedule(0.999) < 0.01
    batch = next(iter(instantiate(config.dataloader.test)))
    assert len(batch) == 8
    assert [a["presence"] for a in model.eval()(batch)] == [a["presence"] for a in trained[0](batch)]


def test_tool_trains_scores_saves_and_resumes_the_lazy_config(tmp_path):
    path = Path(detectron2.__file__).parents[1] / "tools" / "lazyconfig_train_net.py"
    spec = importlib.util.spec_from_file_location("lazyconfig_train_net", path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    overrides = [f"train.output_dir={tmp_path}", "train.device=cpu", "train.log_period=1"]
    overrides += [f"dataloader.{part}.dataset.names={VAL}" for part in ("train", "test")]
    overrides += [f"dataloader.{part}.num_workers=0" for part in ("train", "test")]
    for more in (["train.max_iter=2", "train.eval_period=2"], ["--resume", "train.max_iter=3", "train.eval_period=0"]):
        tool.main(default_argument_parser().parse_args(["--config-file", str(CONFIG), *more, *overrides]))
    rows = [json.loads(line) for line in (tmp_path / "metrics.json").read_text("utf-8").splitlines()]
    assert [row["iteration"] for row in rows if "total_loss" in row] == [0, 1, 2]
    assert [row["iteration"] for row in rows if "segearth/gIoU" in row] == [2, 3]  # after the last step of each run
    assert (tmp_path / "last_checkpoint").read_text("utf-8") == "model_final.pth"


def test_yacs_config(trained, saved, dicts):
    cfg = get_cfg()
    add_segearth_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    entry = QuestionMapper()(dicts[0])
    presence = trained[0]([entry])[0]["presence"]
    for weights, equal in (("", False), (str(saved), True)):
        cfg.merge_from_list(["MODEL.SEGEARTH.NAME", "segearth_debug", "MODEL.SEGEARTH.WEIGHTS", weights])
        model = build_model(cfg)
        assert isinstance(model, SegEarthMetaArch)
        answer = model.eval()([entry])[0]
        assert answer["instances"].image_size == (512, 512)
        assert (answer["presence"] == presence) is equal
    kept = get_detection_dataset_dicts(VAL, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS)
    assert len(kept) == len(dicts) > len(get_detection_dataset_dicts(VAL))


def test_python_of_the_docs_runs_as_pasted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", (DOCS / "detectron2.md").read_text("utf-8"), re.M | re.S))
    exec(compile(code, "detectron2.md", "exec"), {})
    for name in ("output/model_final.pth", "output/segearth/model.safetensors", "answer.png"):
        assert (tmp_path / name).is_file()


def test_any_segmenter_answers_in_detectron2s_form():
    """Each image is set once, and answers come back in the order of the entries."""

    class Noting:
        def __init__(self):
            self.asked = []

        def set_image(self, image):
            self.level = int(image[0, 0, 0])

        def predict(self, questions, *, task):
            self.asked.append((self.level, questions, task))
            return [Segmentation(q, np.full((2, 3), q == "roofs"), 0.5, True, self.level / 10) for q in questions]

    images = [torch.full((3, 2, 3), level, dtype=torch.uint8) for level in (1, 2)]
    entries = [{"image": images[i], "question": q} for i, q in ((0, "roofs"), (1, "roads"), (0, "ships"))]
    segmenter = Noting()
    found = answer_entries(segmenter, entries)
    assert segmenter.asked == [(1, ["roofs", "ships"], ["referring"] * 2), (2, ["roads"], ["referring"])]
    assert [output["presence"] for output in found] == [0.1, 0.2, 0.1]
    assert [len(output["instances"]) for output in found] == [1, 0, 0]
