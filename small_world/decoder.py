"""Training the diffusion decoder: latents from tokens, by the schedule and window that inference uses."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosmos_triton.architectures import TEXT_ROWS, DiffusionDecoderArchitecture
from cosmos_triton.diffusion import DiffusionSettings, DiffusionTransformer, reflected
from small_world.tokens import REFRESH, Fresh, World

CONTEXT_ROWS = 12  # of the text that stands for a prompt where there is none
UNCONDITIONAL = 0.12  # share of windows that learn the row without tokens and text
_LOG_SIGMA = (-0.3, 1.3)  # mean and deviation of the noise levels that matter; a quarter are spread evenly
_TEXT_SEEN = 48  # rows of text in training; all after them are zero and look alike
_ZERO_FIRST = ("linear_2", "proj_out")  # maps that begin at zero: modulations, and what leaves the network


def build(architecture: DiffusionDecoderArchitecture) -> DiffusionTransformer:
    """A fresh network whose weights can be trained; it begins by predicting zero."""
    network = DiffusionTransformer(architecture)
    for name, parameter in network.named_parameters():
        with torch.no_grad():
            if parameter.ndim == 1:
                parameter.fill_(1)
            elif any(zero in name for zero in _ZERO_FIRST):
                parameter.zero_()
            elif "token_embedder" in name:
                parameter.normal_()
            else:
                parameter.normal_(std=parameter.shape[-1] ** -0.5)
    return network.requires_grad_(True)


def stored_context(architecture: DiffusionDecoderArchitecture) -> Tensor:
    """The text context for models without a prompt: [CONTEXT_ROWS, text_dim], the same at every call."""
    generator = torch.Generator().manual_seed(12)
    return torch.randn(CONTEXT_ROWS, architecture.text_dim, generator=generator).to(torch.bfloat16)


def raw_target(clean: Tensor, noisy: Tensor, sigma: Tensor, data: float) -> Tensor:
    """What the network's raw output must be for the sampler to find `clean` (EDM, arXiv 2206.00364)."""
    total = sigma.square() + data**2
    return (clean - noisy * data**2 / total) * total.sqrt() / (sigma * data)


class DecoderStage:
    """What the training loop needs to know about the diffusion decoder.

    Half the windows see the stored context and half some other text, so that the network learns to leave a
    prompt aside: the tokens say what is in the picture.

    Args:
        world, test: clips with tokens and latents, to learn from and never trained on.
        fresh: where new clips come from, which replace the oldest as training goes on.
    """

    captured = False  # the network works out positions on the host

    def __init__(
        self,
        architecture: DiffusionDecoderArchitecture,
        world: World,
        test: World,
        *,
        device: torch.device,
        batch: int = 32,
        seed: int = 0,
        fresh: Fresh | None = None,
    ) -> None:
        torch.manual_seed(seed)
        self.network = build(architecture).to(device)
        self.architecture, self.device, self.settings = architecture, device, DiffusionSettings()
        self.world, self.test, self.batch, self.fresh = world, test, batch, fresh
        self.place = 0
        self.context = stored_context(architecture).float().to(device)
        order = reflected(range(world.tokens.shape[1]), architecture.latent_frames)
        self.order = torch.tensor(order, device=device)
        self.index = torch.zeros(batch, dtype=torch.int64, device=device)

    def next_batch(self, step: int) -> None:
        """Choose the clips of a step."""
        if self.fresh is not None and step % REFRESH == REFRESH - 1:
            self._replace(self.fresh())
        self.index.random_(len(self.world.tokens))

    def loss(self) -> tuple[Tensor, Tensor]:
        """Mean square error of the network's raw output, and the same for logging."""
        conditional = torch.rand(self.batch, device=self.device) >= UNCONDITIONAL
        errors = self._errors(self.network, self.world, self.index, conditional, self._sigmas(self.batch))
        shown = (errors * conditional).sum() / conditional.sum().clamp(min=1)
        return errors.mean(), shown[None]

    def log(self, values: list[float]) -> dict[str, float]:
        """The logged number by name."""
        return {"loss": values[0]}

    @torch.no_grad()
    def evaluate(self, network: nn.Module) -> dict[str, Any]:
        """Errors on held-out clips at fixed noise levels, with and without the tokens."""
        assert isinstance(network, DiffusionTransformer)
        result: dict[str, Any] = {"clips": len(self.test.tokens)}
        for sigma in (0.05, 0.2, 0.5, 1.0, 3.0, 10.0, 40.0):
            both = []
            for with_tokens in (True, False):
                errors = []
                for index in torch.arange(len(self.test.tokens), device=self.device).split(self.batch):
                    known = torch.full((len(index),), with_tokens, device=self.device)
                    sigmas = torch.full((len(index),), sigma, device=self.device)
                    errors.append(self._errors(network, self.test, index, known, sigmas))
                both.append(float(torch.cat(errors).mean()))
            result[f"sigma {sigma}"] = {"conditional": both[0], "unconditional": both[1]}
        return result

    def result(self, network: nn.Module) -> dict[str, Tensor]:
        """Parameters in bf16, by the module's names."""
        return {n: p.detach().to("cpu", torch.bfloat16) for n, p in network.named_parameters()}

    def _replace(self, world: World) -> None:
        """Put other clips where the oldest are."""
        assert self.world.latents is not None
        assert world.latents is not None
        place = slice(self.place, self.place + len(world.tokens))
        self.world.tokens[place] = world.tokens[: len(self.world.tokens[place])]
        self.world.latents[place] = world.latents[: len(self.world.latents[place])]
        self.place = place.stop if place.stop < len(self.world.tokens) else 0

    def _sigmas(self, count: int) -> Tensor:
        mean, spread = _LOG_SIGMA
        low, high = (torch.tensor(s).log() for s in (self.settings.sigma_min, self.settings.sigma_max))
        normal = mean + spread * torch.randn(count, device=self.device)
        even = low + (high - low) * torch.rand(count, device=self.device)
        return torch.where(torch.rand(count, device=self.device) < 0.75, normal, even).clamp(low, high).exp()

    def _errors(
        self, network: DiffusionTransformer, world: World, index: Tensor, conditional: Tensor, sigmas: Tensor
    ) -> Tensor:
        """Mean square error of each window: [B]."""
        assert world.latents is not None
        data = self.settings.sigma_data
        clean = data * world.latents[index][:, :, self.order].float()  # [B, C, window, h, w]
        tokens = world.tokens[index][:, self.order].int() * conditional[:, None, None, None]
        sigma = sigmas[:, None, None, None, None]
        noisy = clean + sigma * torch.randn_like(clean)
        cuda = self.device.type == "cuda"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=cuda):
            found = network(
                noisy / (sigma.square() + data**2).sqrt(),
                sigmas.log() / 4,
                tokens.int(),
                self._texts(len(index)) * conditional[:, None, None],
            )
        wanted = raw_target(clean, noisy, sigma, data)
        return (found.float() - wanted).square().mean(dim=(1, 2, 3, 4))

    def _texts(self, count: int) -> Tensor:
        """Text for each window: [B, 512, text_dim], zero past its end."""
        texts = torch.randn(count, _TEXT_SEEN, self.context.shape[1], device=self.device)
        length = torch.randint(8, _TEXT_SEEN, (count, 1), device=self.device)
        texts = texts * (torch.arange(_TEXT_SEEN, device=self.device) < length)[..., None]
        stored = F.pad(self.context, (0, 0, 0, _TEXT_SEEN - len(self.context)))
        choice = torch.rand(count, 1, 1, device=self.device) < 0.5
        return F.pad(torch.where(choice, stored, texts), (0, 0, 0, TEXT_ROWS - _TEXT_SEEN))


def compile_blocks(network: DiffusionTransformer) -> None:
    """Compile the transformer's blocks where they are; all share one shape."""
    for block in network.transformer.transformer_blocks:
        block.compile(dynamic=False)
