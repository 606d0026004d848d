"""Training of the diffusion decoder agrees with the sampler that serves it."""

from dataclasses import replace

import torch
from diffusers.schedulers.scheduling_edm_euler import EDMEulerScheduler

from cosmos_triton.architectures import DIFFUSION_DECODERS
from small_world import decoder, scenes
from small_world.tokens import World

SMALL = replace(DIFFUSION_DECODERS["small"], dim=64, heads=1, layers=1)


def test_the_target_is_what_the_scheduler_makes_clean_latents_of() -> None:
    torch.manual_seed(0)
    clean, sigma = torch.randn(1, 16, 8, 4, 4), torch.tensor(0.7)
    noisy = clean + sigma * torch.randn_like(clean)

    scheduler = EDMEulerScheduler(sigma_data=0.5)
    found = scheduler.precondition_outputs(noisy, decoder.raw_target(clean, noisy, sigma, 0.5), sigma)

    assert torch.allclose(found, clean, atol=1e-5)


def test_a_decoder_learns_and_is_judged() -> None:
    torch.manual_seed(0)
    tokens = torch.randint(0, 4096, (2, 5, 10, 16), dtype=torch.int16)
    world = World(scenes.sample(2, 0), tokens, torch.ones(2, 16, 5, 20, 32).half())
    stage = decoder.DecoderStage(SMALL, world, world, device=torch.device("cpu"), batch=2)
    optimizer = torch.optim.AdamW(stage.network.parameters(), lr=3e-3)

    losses = []
    for step in range(8):
        stage.next_batch(step)
        loss, _ = stage.loss()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    assert stage.order.tolist() == [0, 1, 2, 3, 4, 3, 2, 1]
    assert min(losses[-3:]) < losses[0]
    assert all(p.grad is not None for p in stage.network.parameters())
