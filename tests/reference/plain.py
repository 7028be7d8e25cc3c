"""The three networks restated in float64 by the authors' parameter names: slow, flat, obvious.

Nothing here is shared with the project's networks or kernels. Every function takes ``w``, a
``state_dict`` in the authors' names, and ``p``, the beginning of the names it uses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = Mapping[str, Tensor]


def double(weights: Weights) -> dict[str, Tensor]:
    """The weights in float64."""
    return {key: value.double() for key, value in weights.items()}


# ---------------------------------------------------------------------------------------- Mamba


def scan(u: Tensor, delta: Tensor, *, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """Token after token: h = exp(ΔA) h + ΔB u, y = C h + D u. u, delta (D, L); B, C (N, L)."""
    h = torch.zeros_like(A)
    y = []
    for t in range(u.shape[1]):
        h = torch.exp(delta[:, t, None] * A) * h + (delta[:, t] * u[:, t])[:, None] * B[None, :, t]
        y.append(h @ C[:, t] + D * u[:, t])
    return torch.stack(y, dim=1)


def branch(w: Weights, p: str, xz: Tensor, suffix: str = "") -> Tensor:
    """One direction of one image's tokens: xz (2·di, L) to (di, L)."""
    x, z = xz.chunk(2)
    A = -torch.exp(w[f"{p}.A{suffix}_log"])
    rank, state = w[f"{p}.dt_proj{suffix}.weight"].shape[1], A.shape[1]
    kernel, bias = w[f"{p}.conv1d{suffix}.weight"], w[f"{p}.conv1d{suffix}.bias"]
    x = F.conv1d(F.pad(x, (kernel.shape[-1] - 1, 0))[None], kernel, bias, groups=len(x))[0]
    x = F.silu(x)
    dt, B, C = (w[f"{p}.x_proj{suffix}.weight"] @ x).split([rank, state, state])
    dt = w[f"{p}.dt_proj{suffix}.weight"] @ dt + w[f"{p}.dt_proj{suffix}.bias"][:, None]
    return scan(x, F.softplus(dt), A=A, B=B, C=C, D=w[f"{p}.D{suffix}"]) * F.silu(z)


def mamba(w: Weights, p: str, tokens: Tensor, slices: int | None = None) -> Tensor:
    """Plain Mamba, or SegMamba's three directions where ``slices`` is given. tokens (B, L, C)."""
    out = []
    for image in tokens:
        xz = w[f"{p}.in_proj.weight"] @ image.T
        y = branch(w, p, xz)
        if slices is not None:
            y = y + branch(w, p, xz.flip(-1), "_b").flip(-1)
            apart = torch.stack(xz.chunk(slices, -1), -1).flatten(-2)
            y_s = branch(w, p, apart, "_s")
            y = y + y_s.reshape(len(y), -1, slices).permute(0, 2, 1).flatten(-2)
        out.append((w[f"{p}.out_proj.weight"] @ y).T)
    return torch.stack(out)


def layer_norm(w: Weights, p: str, tokens: Tensor) -> Tensor:
    return F.layer_norm(tokens, tokens.shape[-1:], w[f"{p}.weight"], w[f"{p}.bias"], 1e-5)


def volume(tokens: Tensor, like: Tensor) -> Tensor:
    return tokens.transpose(1, 2).reshape(len(like), -1, *like.shape[2:])


def conv(w: Weights, p: str, x: Tensor, **options: int) -> Tensor:
    kernel = w[f"{p}.weight"]
    convolve = F.conv2d if kernel.ndim == 4 else F.conv3d
    padding = 0 if options.get("stride") == 2 else kernel.shape[-1] // 2
    return convolve(x, kernel, w.get(f"{p}.bias"), **({"padding": padding} | options))


def count(w: Weights, p: str) -> int:
    """How many numbered parts begin with ``p``."""
    return len({key[len(p) :].split(".")[0] for key in w if key.startswith(p)})


# ----------------------------------------------------------------------------------- LightM-UNet


def rvm(w: Weights, p: str, x: Tensor) -> Tensor:
    tokens = x.flatten(2).transpose(1, 2)
    y = mamba(w, f"{p}.mamba", layer_norm(w, f"{p}.norm", tokens))
    y = layer_norm(w, f"{p}.norm", y + w[f"{p}.skip_scale"] * tokens)
    return volume(y @ w[f"{p}.proj.weight"].T + w[f"{p}.proj.bias"], x)


def group_relu(w: Weights, p: str, x: Tensor) -> Tensor:
    return F.relu(F.group_norm(x, 8, w[f"{p}.weight"], w[f"{p}.bias"], 1e-5))


def separable(w: Weights, p: str, x: Tensor) -> Tensor:
    return conv(w, f"{p}.1.conv", conv(w, f"{p}.0.conv", x, groups=x.shape[1]))


def lightm_unet(w: Weights, x: Tensor) -> Tensor:
    """LightM-UNet in 2D or 3D."""
    spatial = x.ndim - 2
    pool = (F.max_pool2d, F.max_pool3d)[spatial - 2]
    x = separable(w, "convInit", x)
    maps = []
    for i in range(count(w, "down_layers.")):
        if i > 0:
            x = pool(rvm(w, f"down_layers.{i}.0.0", x), 2)
        j = 1  # part 0 is the pooling Mamba layer, or nothing
        while f"{(p := f'down_layers.{i}.{j}')}.norm1.weight" in w:
            y = rvm(w, f"{p}.conv1", group_relu(w, f"{p}.norm1", x))
            x = x + rvm(w, f"{p}.conv2", group_relu(w, f"{p}.norm2", y))
            j += 1
        maps.append(x)
    for i in range(count(w, "up_layers.")):
        mode = ("bilinear", "trilinear")[spatial - 2]
        x = F.interpolate(conv(w, f"up_samples.{i}.0.conv", x), scale_factor=2, mode=mode)
        x = x + maps[-2 - i]
        for j in range(count(w, f"up_layers.{i}.")):
            p = f"up_layers.{i}.{j}"
            y = separable(w, f"{p}.conv", group_relu(w, f"{p}.norm1", x))
            x = group_relu(w, f"{p}.norm2", y + w[f"{p}.skip_scale"] * x)
    return separable(w, "conv_final.2", group_relu(w, "conv_final.0", x))


# ----------------------------------------------------------------------------------------- BRTM


def batch_norm(w: Weights, p: str, x: Tensor) -> Tensor:
    names = ("running_mean", "running_var", "weight", "bias")
    return F.batch_norm(x, *(w[f"{p}.{name}"] for name in names), training=False, eps=1e-5)


def brtm_block(w: Weights, p: str, x: Tensor) -> Tensor:
    if f"{p}.mamba.A_log" in w:
        tokens = x.flatten(2).transpose(1, 2)
        return x + volume(mamba(w, f"{p}.mamba", layer_norm(w, f"{p}.norm", tokens)), x)
    y = F.relu(batch_norm(w, f"{p}.conv.1", conv(w, f"{p}.conv.0", x)))
    y = F.relu(batch_norm(w, f"{p}.conv.4", conv(w, f"{p}.conv.3", y)))
    if f"{p}.residual.0.weight" in w:
        x = batch_norm(w, f"{p}.residual.1", conv(w, f"{p}.residual.0", x))
    return y + x


def brtm_blocks(w: Weights, p: str, x: Tensor) -> Tensor:
    for j in range(count(w, f"{p}.")):
        x = brtm_block(w, f"{p}.{j}", x)
    return x


def brtm(w: Weights, x: Tensor) -> Tensor:
    """SegMamba-BRTM in eval mode."""
    x = brtm_block(w, "initial_conv", x)
    skips = []
    for i in range(count(w, "encoders.")):
        skips.append(brtm_blocks(w, f"encoders.{i}.blocks", x))
        x = conv(w, f"encoders.{i}.downsample", skips[-1], stride=2)
    x = brtm_blocks(w, "bottleneck", x)
    for i, skip in enumerate(reversed(skips)):
        kernel, bias = w[f"decoders.{i}.upsample.weight"], w[f"decoders.{i}.upsample.bias"]
        x = F.conv_transpose3d(x, kernel, bias, stride=2)
        x = F.interpolate(x, size=skip.shape[2:], mode="trilinear", align_corners=False)
        x = brtm_blocks(w, f"decoders.{i}.blocks", torch.cat([x, skip], 1))
    return conv(w, "segmentation_head", x)


# ------------------------------------------------------------------------------------ SegMamba V1


def instance_norm(x: Tensor) -> Tensor:
    axes = (2, 3, 4)
    return (x - x.mean(axes, keepdim=True)) / torch.sqrt(
        x.var(axes, keepdim=True, correction=0) + 1e-5
    )


def unet_block(w: Weights, p: str, x: Tensor) -> Tensor:
    y = F.leaky_relu(instance_norm(conv(w, f"{p}.conv1.conv", x)), 0.01)
    y = instance_norm(conv(w, f"{p}.conv2.conv", y))
    if f"{p}.conv3.conv.weight" in w:
        x = instance_norm(conv(w, f"{p}.conv3.conv", x))
    return F.leaky_relu(y + x, 0.01)


def gsc(w: Weights, p: str, x: Tensor) -> Tensor:
    y = F.relu(instance_norm(conv(w, f"{p}.proj", x)))
    y = F.relu(instance_norm(conv(w, f"{p}.proj2", y)))
    y = y + F.relu(instance_norm(conv(w, f"{p}.proj3", x)))
    return x + F.relu(instance_norm(conv(w, f"{p}.proj4", y)))


def segmamba(w: Weights, x: Tensor, slices: Sequence[int] = (64, 32, 16, 8)) -> Tensor:
    """The official SegMamba (V1)."""
    skips = [unet_block(w, "encoder1.layer", x)]
    for i in range(4):
        if i == 0:
            x = conv(w, "vit.downsample_layers.0.0", x, stride=2, padding=3)
        else:
            x = conv(w, f"vit.downsample_layers.{i}.1", instance_norm(x), stride=2)
        x = gsc(w, f"vit.gscs.{i}", x)
        for j in range(count(w, f"vit.stages.{i}.")):
            p = f"vit.stages.{i}.{j}"
            tokens = layer_norm(w, f"{p}.norm", x.flatten(2).transpose(1, 2))
            x = x + volume(mamba(w, f"{p}.mamba", tokens, slices[i]), x)
        y = F.gelu(conv(w, f"vit.mlps.{i}.fc1", instance_norm(x)))
        skips.append(unet_block(w, f"encoder{i + 2}.layer", conv(w, f"vit.mlps.{i}.fc2", y)))
    x = skips.pop()
    for number in (5, 4, 3, 2):
        x = F.conv_transpose3d(x, w[f"decoder{number}.transp_conv.conv.weight"], stride=2)
        x = unet_block(w, f"decoder{number}.conv_block", torch.cat([x, skips.pop()], 1))
    return conv(w, "out.conv.conv", unet_block(w, "decoder1.layer", x))
