"""The files that are written beside a plain network and show its use. Tests run them."""

PREPROCESS = '''"""From an image file to what the network reads, as in training; what was random there is left out."""

import numpy as np
import torch
from PIL import Image


def preprocessed(image, facts):
    """A PIL image of 8 bits a channel to float32 (1, C, H, W). facts: what preprocessing.json holds."""
    if image.mode in ("I", "I;16", "I;16B", "I;16L", "I;16N", "F"):
        raise ValueError(f"the image has mode {image.mode}: bring it to 8 bits a channel first")
    (height, width), channels = facts["image_size"], len(facts["mean"])
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[0] < 255:  # what is transparent lies on a grey
            image = Image.alpha_composite(Image.new("RGBA", image.size, (facts["background"],) * 3 + (255,)), image)
    image = image.convert({1: "L", 3: "RGB"}[channels])
    wide, high = image.size  # resized until it covers the network's size, then cut to the centre
    covers = (height * wide // high, height) if wide * height >= high * width else (width, width * high // wide)
    image = image.resize(covers, Image.Resampling.BILINEAR)
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    pixels = np.array(image.crop((left, top, left + width, top + height))).reshape(height, width, channels)
    if facts["crop"] is not None:
        top, left = (height - facts["crop"]) // 2, (width - facts["crop"]) // 2
        pixels = pixels[top : top + facts["crop"], left : left + facts["crop"]]
    x = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None].float() / 255
    return (x - torch.tensor(facts["mean"]).view(-1, 1, 1)) / torch.tensor(facts["std"]).view(-1, 1, 1)
'''

CLASSIFY = '''"""Classifies image files: python classify.py IMAGE... Needs torch, NumPy and Pillow."""

import json
import sys
from pathlib import Path

import torch
from network import Network
from PIL import Image
from preprocess import preprocessed

here = Path(__file__).resolve().parent
facts = json.loads((here / "preprocessing.json").read_text(encoding="utf-8"))
net = Network().eval()
net.load_state_dict(torch.load(here / "weights.pt", weights_only=True))
for path in sys.argv[1:]:
    with torch.no_grad():
        chances = net(preprocessed(Image.open(path), facts)).softmax(1)[0]
    print(f"{path}  {facts['class_names'][chances.argmax()]}  {100 * chances.max():.1f} %")
'''

CLASSIFY_ONNX = '''"""Classifies image files: python classify.py IMAGE... Needs onnxruntime, torch, NumPy and Pillow."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image
from preprocess import preprocessed

here = Path(__file__).resolve().parent
facts = json.loads((here / "preprocessing.json").read_text(encoding="utf-8"))
net = onnxruntime.InferenceSession(str(here / "network.onnx"), providers=["CPUExecutionProvider"])
for path in sys.argv[1:]:
    logits = net.run(["logits"], {"x": preprocessed(Image.open(path), facts).numpy()})[0][0]
    chances = np.exp(logits - logits.max())
    chances /= chances.sum()
    print(f"{path}  {facts['class_names'][chances.argmax()]}  {100 * chances.max():.1f} %")
'''

_A_TEXT = '''"""Goes on with a text: python continue.py TEXT [ITEMS]. Needs torch alone."""

import json
import sys
from pathlib import Path

import torch
from network import Network

here = Path(__file__).resolve().parent
facts = json.loads((here / "preprocessing.json").read_text(encoding="utf-8"))
place = {item: n for n, item in enumerate(facts["vocabulary"])}
items = list(sys.argv[1]) if facts["level"] == "character" else sys.argv[1].split()
net = Network().eval()
net.load_state_dict(torch.load(here / "weights.pt", weights_only=True))
'''

CONTINUE_WINDOWS = _A_TEXT + '''context, generator = len(net.positions.weight), torch.Generator().manual_seed(0)
tokens = torch.tensor([[place.get(item, place.get("<unk>", 0))] for item in items])
for _ in range(int(sys.argv[2]) if len(sys.argv) > 2 else 100):
    with torch.no_grad():
        logits = net(tokens[-context:])
    tokens = torch.cat([tokens, torch.multinomial(logits[-1].softmax(1), 1, generator=generator)])
    items.append(facts["vocabulary"][tokens[-1].item()])
print(("" if facts["level"] == "character" else " ").join(items))
'''

CONTINUE = _A_TEXT + '''tokens = torch.tensor([[place.get(item, place.get("<unk>", 0))] for item in items])
hidden, generator = torch.zeros(1, net.embedding.embedding_dim), torch.Generator().manual_seed(0)
for _ in range(int(sys.argv[2]) if len(sys.argv) > 2 else 100):
    with torch.no_grad():
        logits, hidden = net(tokens, hidden)
    tokens = torch.multinomial(logits[-1].softmax(1), 1, generator=generator)
    items.append(facts["vocabulary"][tokens.item()])
print(("" if facts["level"] == "character" else " ").join(items))
'''
