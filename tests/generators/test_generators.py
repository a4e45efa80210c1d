import pytest
import torch

from synthaug.core import InputError
from synthaug.generators import GENERATORS, load_run, save_generator
from tests.checks import (
    check_few_steps_lower_the_loss,
    check_label_changes_the_image,
    check_parameters_get_their_own_gradients,
    check_sample_shape_and_range,
    check_sampling_is_determined_by_noise,
    make,
)

families = pytest.mark.parametrize("family", list(GENERATORS))


@families
@pytest.mark.parametrize(("size", "channels"), [(8, 1), (13, 2), (28, 1), (32, 3), (64, 4)])
def test_sample_shape_and_range(family, size, channels):
    check_sample_shape_and_range(family, size, channels)


@families
def test_sampling_is_determined_by_noise(family):
    check_sampling_is_determined_by_noise(family)


@families
def test_gradients_reach_their_own_parameters(family):
    check_parameters_get_their_own_gradients(family)


@families
def test_few_steps_lower_the_loss(family):
    check_few_steps_lower_the_loss(family)


@families
def test_label_changes_the_image(family):
    check_label_changes_the_image(family)


@families
def test_saved_and_loaded_samples_are_the_same(family, tmp_path):
    generator = make(family).eval()
    cls = GENERATORS[family]
    config = {"class_names": generator.class_names, "image_size": 8, "channels": 1}
    from tests.checks import TINY

    config |= TINY[family] or cls.preset([20] * 3, 8, 1).constructor
    save_generator(tmp_path, generator, config)
    loaded = load_run(tmp_path)
    labels = torch.tensor([0, 1, 2])
    noise = torch.randn(3, *generator.noise_shape)
    assert torch.equal(generator.sample(labels, noise=noise), loaded.sample(labels, noise=noise))


@families
def test_bad_arguments_name_the_remedy(family):
    generator = make(family)
    with pytest.raises(InputError, match=r"labels must lie in 0\.\.2"):
        generator.sample(torch.tensor([3]))
    with pytest.raises(InputError, match="temperature"):
        generator.sample(torch.tensor([0]), temperature=-1)
    with pytest.raises(InputError, match="8 to 64"):
        GENERATORS[family](class_names=["a", "b"], image_size=7, channels=1)
