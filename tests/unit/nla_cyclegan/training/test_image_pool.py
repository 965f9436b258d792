import textbook
import torch

from nla_cyclegan.training.image_pool import ImagePool


def query(pool, images, random):
    return pool.exchange(images, pool.draw(len(images), random))


def batches(count=30, size=3):
    return torch.arange(count * size, dtype=torch.float).reshape(count, size, 1, 1, 1)


def test_gives_what_a_list_would_give():
    pool, stored = ImagePool(7), []
    for step, batch in enumerate(batches()):
        given = query(pool, batch, torch.Generator().manual_seed(step))
        expected = textbook.list_pool(stored, list(batch), 7, torch.Generator().manual_seed(step))
        assert given.flatten().tolist() == [image.item() for image in expected]
    assert pool.images.flatten().tolist() == [image.item() for image in stored]
    assert pool.images.max() > 60, "a full pool goes on taking new images"


def test_capacity_0_gives_the_batch_back():
    batch = batches()[0]
    assert query(ImagePool(0), batch, torch.Generator()) is batch


def test_does_not_keep_the_batch_alive_or_see_it_change():
    pool, batch = ImagePool(3), batches()[1].clone()
    query(pool, batch, torch.Generator())
    batch.zero_()
    assert pool.images.flatten().tolist() == [3.0, 4.0, 5.0]


def test_continues_from_loaded_images():
    pool, copy = ImagePool(5), ImagePool(5)
    for step, batch in enumerate(batches(10)):
        query(pool, batch, torch.Generator().manual_seed(step))
    copy.load_images(pool.images)
    for step, batch in enumerate(batches(20)):
        seeds = (torch.Generator().manual_seed(step), torch.Generator().manual_seed(step))
        assert torch.equal(query(pool, batch, seeds[0]), query(copy, batch, seeds[1]))


def test_a_smaller_pool_takes_what_fits():
    pool = ImagePool(2)
    pool.load_images(torch.ones(5, 1, 1, 1))
    assert pool.size == 2
    pool.load_images(None)
    assert pool.size == 0
    assert pool.images is None


def test_an_idle_exchange_gives_the_batch_back_and_keeps_nothing():
    pool = ImagePool(4)
    for step, batch in enumerate(batches(8)):
        query(pool, batch, torch.Generator().manual_seed(step))
        before = pool.images.clone()
        assert torch.equal(pool.exchange(batch, pool.idle(len(batch))), batch)
        assert torch.equal(pool.images, before)


def test_a_batch_larger_than_the_pool_exchanges_images_of_its_own():
    pool, stored = ImagePool(2), []
    for step, batch in enumerate(batches(20, size=7)):
        given = query(pool, batch, torch.Generator().manual_seed(step))
        expected = textbook.list_pool(stored, list(batch), 2, torch.Generator().manual_seed(step))
        assert given.flatten().tolist() == [image.item() for image in expected]


def test_loaded_images_go_to_the_pools_device_and_stay_where_they_are_stored():
    """A device of which every machine has one stands for a GPU."""
    pool = ImagePool(3, "meta")
    pool.load_images(torch.ones(2, 1, 1, 1))
    stored = pool.images
    assert stored.device.type == "meta"
    pool.load_images(torch.ones(3, 1, 1, 1))
    assert pool.images._base is stored._base, "a graph that was captured goes on writing there"
    assert pool.images.shape == (3, 1, 1, 1)


def test_images_of_another_type_are_stored_in_that_type():
    pool = ImagePool(2)
    pool.load_images(torch.ones(2, 1, 1, 1))
    assert query(pool, batches(1)[0].bfloat16(), torch.Generator().manual_seed(0)).dtype == torch.bfloat16
    assert pool.images.dtype == torch.bfloat16
