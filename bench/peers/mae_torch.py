"""The PyTorch peer of `mae bench`: a masked autoencoder written from the formulas of He et al. 2021, in the best form that the installed
PyTorch has, doing no work that node-mae does not do: only visible patches are embedded, only removed ones are predicted.

    mae_torch.py <threads>

answers every line of JSON on standard input with one on standard output; `serve` lists the requests. Parameters have the reference's names.
"""
import contextlib
import json
import resource
import struct
import sys
import threading
import time

import torch
import torch.nn.functional as F
from torch import nn

HAS_SDPA = hasattr(F, "scaled_dot_product_attention")


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        if HAS_SDPA:
            out = F.scaled_dot_product_attention(q, k, v)
        else:
            out = ((q * (width // self.heads) ** -0.5) @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(out.transpose(1, 2).reshape(batch, tokens, width))


class Mlp(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, width, heads, mlp_ratio, eps):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """Holds the convolution's weight; on gathered patches it is a matrix product."""

    def __init__(self, patch, channels, width):
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, patch)


class MaskedAutoencoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.patch, self.channels, self.norm_pix = c["patch_size"], c["in_chans"], c["norm_pix_loss"]
        self.grid = [side // self.patch for side in c["img_size"]]
        patches = self.grid[0] * self.grid[1]
        self.visible = int(patches * (1 - c["mask_ratio"]))
        width, narrow, eps = c["embed_dim"], c["decoder_embed_dim"], c["norm_eps"]
        self.patch_embed = PatchEmbed(self.patch, self.channels, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, patches + 1, width), requires_grad=False)
        self.blocks = nn.ModuleList(Block(width, c["num_heads"], c["mlp_ratio"], eps) for _ in range(c["depth"]))
        self.norm = nn.LayerNorm(width, eps)
        self.decoder_embed = nn.Linear(width, narrow)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, narrow))
        self.decoder_pos_embed = nn.Parameter(torch.zeros(1, patches + 1, narrow), requires_grad=False)
        self.decoder_blocks = nn.ModuleList(
            Block(narrow, c["decoder_num_heads"], c["mlp_ratio"], eps) for _ in range(c["decoder_depth"])
        )
        self.decoder_norm = nn.LayerNorm(narrow, eps)
        self.decoder_pred = nn.Linear(narrow, self.patch**2 * self.channels)
        self.register_buffer("scale", 1 / (255 * torch.tensor(c["std"])), persistent=False)
        self.register_buffer("shift", -torch.tensor(c["mean"]) / torch.tensor(c["std"]), persistent=False)

    def forward(self, images, noise):
        """images uint8 [batch, height, width, channels], noise [batch, patches] -> mean loss over the removed patches."""
        batch, p, (rows, columns) = len(images), self.patch, self.grid
        ids = noise.argsort(dim=1)
        keep, removed = ids[:, : self.visible], ids[:, self.visible :]
        restore = ids.argsort(dim=1)
        patches = images.view(batch, rows, p, columns, p, self.channels).transpose(2, 3).reshape(batch, rows * columns, -1)

        x = self.pixels(rows_of(patches, keep)).permute(0, 1, 4, 2, 3).flatten(2)  # (channel, row, column), as the convolution's weight
        x = F.linear(x, self.patch_embed.proj.weight.flatten(1), self.patch_embed.proj.bias)
        x = x + rows_of(self.pos_embed.expand(batch, -1, -1), keep + 1)
        x = torch.cat([(self.cls_token + self.pos_embed[:, :1]).expand(batch, -1, -1).to(x.dtype), x], 1)
        for block in self.blocks:
            x = block(x)
        x = self.decoder_embed(self.norm(x))

        tokens = torch.cat([x[:, 1:], self.mask_token.to(x.dtype).expand(batch, removed.shape[1], -1)], 1)
        x = torch.cat([x[:, :1], rows_of(tokens, restore)], 1) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            x = block(x)
        pred = self.decoder_pred(self.decoder_norm(rows_of(x, removed + 1)))

        target = self.pixels(rows_of(patches, removed)).flatten(2)
        if self.norm_pix:
            target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
        return ((pred.float() - target) ** 2).mean()

    def pixels(self, patches):
        """uint8 [batch, count, p * p * channels] -> normalised [batch, count, p, p, channels]."""
        return patches.view(*patches.shape[:2], self.patch, self.patch, self.channels).float() * self.scale + self.shift


def rows_of(x, ids):
    """x [batch, rows, width], ids [batch, count] -> [batch, count, width]."""
    return x.gather(1, ids.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def read_safetensors(path):
    """float32 tensors by name."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = bytearray(file.read())
    entries = ((name, entry) for name, entry in header.items() if name != "__metadata__")
    return {
        name: torch.frombuffer(data, dtype=torch.float32, count=(end - begin) // 4, offset=begin).view(entry["shape"])
        for name, entry in entries
        for begin, end in [entry["data_offsets"]]
    }


def make_optimizer(parameters):
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    for form in ({"fused": True}, {"foreach": True}):
        with contextlib.suppress(TypeError, RuntimeError):  # not in this version, not on this device
            return torch.optim.AdamW(groups, lr=1.5e-4, betas=(0.9, 0.95), **form)
    return torch.optim.AdamW(groups, lr=1.5e-4, betas=(0.9, 0.95))


def anonymous_bytes():
    """What the process holds of its own: without files mapped, PyTorch's own libraries among them. Where the system does not tell, its peak."""
    with contextlib.suppress(OSError), open("/proc/self/status") as status:
        for line in status:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextlib.contextmanager
def watched_memory():
    """Gives a list of one: the most that anonymous_bytes was in the block, looked at every two milliseconds."""
    peak, done = [anonymous_bytes()], threading.Event()

    def watch():
        while not done.wait(0.002):
            peak[0] = max(peak[0], anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


class Peer:
    BATCHES = 3  # different random batches that take turns, as in node-mae's side

    def __init__(self, threads):
        torch.set_num_threads(threads)
        self.baseline = anonymous_bytes()
        self.runs = 0

    def about_torch(self):
        probe = [torch.zeros(1, requires_grad=True)]
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return {
            "torch": torch.__version__,
            "sdpa": HAS_SDPA,
            "fusedAdamw": make_optimizer([p.detach().to(device).requires_grad_() for p in probe]).defaults.get("fused") is True,
            "bf16": hasattr(torch, "autocast"),
            "compile": hasattr(torch, "compile"),
            "threads": torch.get_num_threads(),
        }

    def prepare(self, config, batch, precision, device, mode, weights):
        if device == "cuda" and not torch.cuda.is_available():
            raise RuntimeError("this PyTorch has no CUDA device")
        self.device, self.batch = torch.device(device), batch
        self.autocast = lambda: torch.autocast(device, dtype=torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
        self.model = MaskedAutoencoder(config)
        missing, unknown = self.model.load_state_dict(read_safetensors(weights), strict=False)
        if missing or unknown:
            raise RuntimeError(f"weights: missing {missing}, unknown {unknown}")
        self.model.to(self.device)
        self.optimizer = make_optimizer([p for p in self.model.parameters() if p.requires_grad])
        self.compiled = self.model if mode == "eager" else torch.compile(self.model, mode=mode, dynamic=False)
        shape = (batch, *config["img_size"], config["in_chans"])
        self.pictures = [torch.randint(0, 256, shape, dtype=torch.uint8) for _ in range(self.BATCHES)]
        if device == "cuda":
            self.pictures = [pictures.pin_memory() for pictures in self.pictures]
        return {}

    def check(self, count, images, noise):
        """The loss on given pictures and noise, without a step."""
        patches = self.model.grid[0] * self.model.grid[1]
        with open(images, "rb") as file:
            pictures = torch.frombuffer(bytearray(file.read()), dtype=torch.uint8).view(count, *self.pictures[0].shape[1:])
        with open(noise, "rb") as file:
            values = torch.frombuffer(bytearray(file.read()), dtype=torch.float32).view(count, patches)
        with torch.no_grad(), self.autocast():
            return {"loss": self.model(pictures.to(self.device), values.to(self.device)).item()}

    def run(self, steps):
        """Mean seconds of a step: pictures to the device, forward, backward, update; the loss is read back once, at the end."""
        patches = self.model.grid[0] * self.model.grid[1]
        started = time.perf_counter()
        for _ in range(steps):
            pictures = self.pictures[self.runs % self.BATCHES].to(self.device, non_blocking=True)
            self.runs += 1
            noise = torch.rand(self.batch, patches, device=self.device)
            with self.autocast():
                loss = self.compiled(pictures, noise)
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)  # as the reference does: the forward pass needs no memory for gradients
        loss.item()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return {"seconds": (time.perf_counter() - started) / steps}

    def about(self):
        """Peak memory of a step, and the speed of this PyTorch's own matrix product: a build without an optimised BLAS shows here."""
        if self.device.type == "cuda":
            used = torch.cuda.max_memory_allocated()
        else:
            with watched_memory() as peak:
                self.run(1)
            used = max(1, peak[0] - self.baseline)
        a = torch.randn(1024, 1024, device=self.device)
        best = float("inf")
        for _ in range(5):
            started = time.perf_counter()
            (a @ a).sum().item()
            best = min(best, time.perf_counter() - started)
        return {"bytes": used, "matmul": 2 * 1024**3 / best}


def serve(peer):
    requests = {"prepare": peer.prepare, "check": peer.check, "run": peer.run, "about": peer.about}
    print(json.dumps(peer.about_torch()), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = requests[request.pop("do")](**request)
        except Exception as error:  # everything becomes an answer: the benchmark decides what to do without this peer
            answer = {"error": f"{type(error).__name__}: {error}"[:500]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve(Peer(int(sys.argv[1])))
