import io

import numpy as np
import pytest
from PIL import Image

from synthaug.core import tile_images


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_images_stand_where_they_belong(channels):
    rows = [np.full((3, 8, 8, channels), 10, np.uint8), np.full((1, 8, 8, channels), 200, np.uint8)]
    picture = np.asarray(Image.open(io.BytesIO(tile_images(rows, scale=2))))
    picture = picture[..., None] if channels == 1 else picture
    assert picture.shape == ((2 * 9 + 1) * 2, (3 * 9 + 1) * 2, channels)
    assert (picture[2:18, 2:18] == 10).all() and (picture[20:36, 2:18] == 200).all()
    assert (picture[20:36, 20:36] == 255).all()


def test_small_images_are_enlarged_and_nothing_is_a_picture_too():
    wide = Image.open(io.BytesIO(tile_images([np.zeros((1, 8, 8, 1), np.uint8)])))
    assert wide.width >= 56
    assert Image.open(io.BytesIO(tile_images([]))).width >= 1
