"""The whole script, from its docstring to the test accuracy that it prints."""

from __future__ import annotations

from ralr_tune.errors import UsageError
from ralr_tune.kinds.classification import mixing
from ralr_tune.kinds.classification.augment import CROP_PADDING, CUTOUT_SIDE
from ralr_tune.report.script.data import data_part
from ralr_tune.report.script.network import network_part
from ralr_tune.report.script.parts import OTHER_FORMS, Part, import_block, keywords, literal, source_of
from ralr_tune.report.script.rate import RatePart, rate_part
from ralr_tune.studyfile.configuration import TrainingConfig
from ralr_tune.studyfile.exported import Exported
from ralr_tune.studyfile.sections import MIXINGS, ClassificationTask
from ralr_tune.training.optimizer import optimizers
from ralr_tune.training.precision import SMALLEST_PIXELS

_COMMON = frozenset(
    {
        "import torch",
        "from torch.nn import functional as F",
        "from torch.utils.data import DataLoader",
        "from torch.utils.data import Dataset",
        "from torchvision.transforms import v2",
    }
)

_SCRIPT = '''\
"""{docstring}"""

from __future__ import annotations

{imports}
EPOCHS = {epochs}
BATCH_SIZE = {batch_size}
LR = {lr}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

torch.manual_seed({seed})

# ---------------------------------------------------------------- data

{data}
CHANNELS, HEIGHT, WIDTH = train_images.shape[1:]

# ---------------------------------------------------------------- network

{network}
# ---------------------------------------------------------------- augmentation, image by image

grey = torch.arange(256, dtype=torch.float64)
counts = torch.stack([channel.flatten().bincount(minlength=256) for channel in train_images.unbind(1)]).double()
shares = counts / counts.sum(1, keepdim=True)
mean = shares @ grey
std = (shares @ grey**2 - mean**2).sqrt().clamp(min=1.0)
normalise = v2.Compose([v2.ToDtype(torch.float32), v2.Normalize(mean.tolist(), std.tolist())])
{augment}{mixing}

class Images(Dataset):
    def __init__(self, images, labels, transform):
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, row):
        return self.transform(self.images[row]), self.labels[row]


alone = BATCH_SIZE > 1 and len(train_labels) % BATCH_SIZE == 1  # batch normalisation cannot take a batch of one image
train_set, test_set = Images(train_images, train_labels, {transform}), Images(test_images, test_labels, normalise)
train_loader = DataLoader(train_set, BATCH_SIZE, shuffle=True, drop_last=alone)
test_loader = DataLoader(test_set, BATCH_SIZE)
STEPS = len(train_loader)

# ---------------------------------------------------------------- learning rate

model.to(DEVICE{memory_format})
{compile}optimizer = torch.optim.{optimizer}(model.parameters(), lr=LR, weight_decay={weight_decay}{options})
{rate}
# ---------------------------------------------------------------- training

BFLOAT16 = {bfloat16}


def predict(images):
    with torch.autocast(DEVICE, dtype=torch.bfloat16, enabled=BFLOAT16):
        return model(images.to(DEVICE{memory_format})).float()


for epoch in range(EPOCHS):
    model.train()
    total = 0.0
    for images, labels in train_loader:
{mix}{before_step}        optimizer.zero_grad()
        loss = F.cross_entropy(predict(images), labels.to(DEVICE){label_smoothing})
        loss.backward()
{clip}        lr = optimizer.param_groups[0]["lr"]
        optimizer.step()
{after_step}        total += loss.item()
{after_epoch}    print(f"epoch {{epoch + 1}}/{{EPOCHS}}: loss {{total / STEPS:.4f}}, learning rate {{lr:.4g}}")

model.eval()
with torch.no_grad():
    correct = sum((predict(images).argmax(1).cpu() == labels).sum().item() for images, labels in test_loader)
print(f"test accuracy {{correct / len(test_labels):.4f}}")
'''

_CUTOUT = f'''

def cutout(image):
    """A square in the mean colour; its centre lies anywhere (arXiv 1708.04552)."""
    side = max(1, round(HEIGHT * {CUTOUT_SIDE}))
    row, column = (int(torch.randint(length, ())) - side // 2 for length in (HEIGHT, WIDTH))
    image = image.clone()
    hole = image[:, max(row, 0) : max(row + side, 0), max(column, 0) : max(column + side, 0)]
    hole[:] = mean.round().to(image.dtype)[:, None, None]
    return image


'''
_MIXING = """\

# ---------------------------------------------------------------- augmentation, batch by batch

{source}

mixing = Mixing({names}, HEIGHT, WIDTH, len(names))
"""
_MIX = "images, labels = mixing.apply(images, labels, mixing.draw(len(images), torch.default_generator))"

_TRANSFORMS = {
    "crop": f"v2.RandomCrop((HEIGHT, WIDTH), padding=max(1, round(HEIGHT * {CROP_PADDING})))",
    "flip": "v2.RandomHorizontalFlip()",
    "cutout": "cutout",
}
"""kinds.classification.augment's, for one image."""

_PRECISIONS = {
    "float32": "False",
    "bfloat16": "True",
    "auto": (
        f'min(HEIGHT, WIDTH) >= {SMALLEST_PIXELS} and DEVICE == "cuda"'
        " and torch.cuda.is_bf16_supported(including_emulation=False)"
    ),
}


def script(configuration: Exported) -> str:
    """A Python script that trains `configuration` on train + validation data and prints its test accuracy.

    It needs torch, torchvision and what the data take; of this package `RandomAmplifyLR`, if the arm amplifies. Raises
    UsageError where there is nothing to train, or something that a script cannot say.
    """
    task, training = configuration.task, configuration.training
    if not isinstance(task, ClassificationTask):
        raise UsageError(f"task.kind = {task.kind!r} trains nothing, so there is no script for it; {OTHER_FORMS}")
    data = data_part(task.data)
    network = network_part(task)
    rate = rate_part(configuration.configuration(), configuration.provenance.seed)
    pairs = _mixing(training)
    imports = import_block(_COMMON | data.imports | network.imports | pairs.imports | rate.setup.imports)
    return _SCRIPT.format(
        docstring=_docstring(configuration),
        imports=imports,
        seed=literal(configuration.provenance.seed),
        data=data.body,
        network=network.body,
        **_augmentation(training),
        mixing=pairs.body,
        mix=_indented(_MIX) if pairs.body else "",
        **_training(training),
        **_rate(rate),
    )


def _docstring(configuration: Exported) -> str:
    lines = [
        "Trains one configuration on train + validation data and tests it once.",
        "",
        *configuration.lines(),
        "",
    ]
    return "\n".join(lines)


def _augmentation(training: TrainingConfig) -> dict[str, str]:
    names = [name for name in training.augment if name not in MIXINGS]
    if not names:
        return {"augment": "", "transform": "normalise"}
    steps = "".join(f"    {_TRANSFORMS[name]},\n" for name in names)
    compose = f"augment = v2.Compose([\n{steps}    normalise,\n])\n"
    return {"augment": (_CUTOUT if "cutout" in names else "") + compose, "transform": "augment"}


def _mixing(training: TrainingConfig) -> Part:
    names = [name for name in training.augment if name in MIXINGS]
    if not names:
        return Part("")
    source = source_of(mixing)
    return Part(_MIXING.format(source=source.body, names=literal(names)), source.imports)


def _training(training: TrainingConfig) -> dict[str, str]:
    smoothing, clip = training.label_smoothing, training.clip_norm
    return {
        "epochs": literal(training.epochs),
        "batch_size": literal(training.batch_size),
        "lr": literal(training.lr),
        "optimizer": optimizers()[training.optimizer].__name__,
        "weight_decay": literal(training.weight_decay),
        "options": keywords(training.options),
        "memory_format": ", memory_format=torch.channels_last" if training.channels_last is True else "",
        "compile": "model.compile()\n" if training.compile is True else "",
        "bfloat16": _PRECISIONS[training.precision],
        "label_smoothing": f", label_smoothing={literal(smoothing)}" if smoothing else "",
        "clip": _indented(f"torch.nn.utils.clip_grad_norm_(model.parameters(), {literal(clip)})") if clip else "",
    }


def _rate(rate: RatePart) -> dict[str, str]:
    return {
        "rate": rate.setup.body,
        "before_step": _indented(*rate.before_step),
        "after_step": _indented(*rate.after_step),
        "after_epoch": _indented(*rate.after_epoch, levels=1),
    }


def _indented(*lines: str, levels: int = 2) -> str:
    return "".join(f"{'    ' * levels}{line}\n" for line in lines)
