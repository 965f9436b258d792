import textbook
import torch

from nla_cyclegan.training.image_pool import ImagePool


def batches(count=30, size=3):
    return torch.arange(count * size, dtype=torch.float).reshape(count, size, 1, 1, 1)


def test_gives_what_a_list_would_give():
    pool, stored = ImagePool(7), []
    for step, batch in enumerate(batches()):
        given = pool.query(batch, torch.Generator().manual_seed(step))
        expected = textbook.list_pool(stored, list(batch), 7, torch.Generator().manual_seed(step))
        assert given.flatten().tolist() == [image.item() for image in expected]
    assert pool.images.flatten().tolist() == [image.item() for image in stored]
    assert pool.images.max() > 60, "a full pool goes on taking new images"


def test_capacity_0_gives_the_batch_back():
    batch = batches()[0]
    assert ImagePool(0).query(batch, torch.Generator()) is batch


def test_does_not_keep_the_batch_alive_or_see_it_change():
    pool, batch = ImagePool(3), batches()[1].clone()
    pool.query(batch, torch.Generator())
    batch.zero_()
    assert pool.images.flatten().tolist() == [3.0, 4.0, 5.0]


def test_continues_from_loaded_images():
    pool, copy = ImagePool(5), ImagePool(5)
    for step, batch in enumerate(batches(10)):
        pool.query(batch, torch.Generator().manual_seed(step))
    copy.load_images(pool.images)
    for step, batch in enumerate(batches(20)):
        seeds = (torch.Generator().manual_seed(step), torch.Generator().manual_seed(step))
        assert torch.equal(pool.query(batch, seeds[0]), copy.query(batch, seeds[1]))


def test_a_smaller_pool_takes_what_fits():
    pool = ImagePool(2)
    pool.load_images(torch.ones(5, 1, 1, 1))
    assert pool.size == 2
    pool.load_images(None)
    assert pool.size == 0
    assert pool.images is None
