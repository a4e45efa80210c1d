import torch
from torch import nn

from synthaug.training.ema import MovingAverage


def test_half_life_in_images():
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 0.0)
    average = MovingAverage(module, half_life=100, ramp=1e9)
    nn.init.constant_(module.weight, 1.0)
    for step in range(10):
        average.update(module, images_seen=10 * (step + 1), batch_size=10)
    torch.testing.assert_close(average.module.weight.item(), 0.5, atol=1e-6, rtol=0)


def test_ramp_forgets_the_start_and_buffers_are_copied():
    module = nn.BatchNorm1d(2)
    average = MovingAverage(module, half_life=1e9, ramp=0.05)
    nn.init.constant_(module.weight, 3.0)
    module.running_mean.fill_(7.0)
    average.update(module, images_seen=100, batch_size=100)
    assert (average.module.weight > 2.99).all() and (average.module.running_mean == 7).all()
    assert not any(p.requires_grad for p in average.module.parameters())
