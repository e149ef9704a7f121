"""The data sets that are known by name, without torch. A new one is an entry here and a function of its pixels."""

from __future__ import annotations

from advmix_cli.data.info import DatasetInfo

_DIGITS = tuple("0123456789")
_CIFAR100 = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can "
    "castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin "
    "elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster "
    "man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck "
    "pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk "
    "skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger "
    "tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)


def _like_mnist(folder: str, **digests: str) -> dict[str, str]:
    names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    return {f"{folder}/raw/{name}": digests.get(name.replace("-", "_"), "") for name in names}


DATASETS = {
    info.name: info
    for info in (
        DatasetInfo(
            "glyphs",
            "digits drawn with an embedded font; needs no download",
            (1, 32, 32),
            {"train": 10_000, "test": 2_000},
            _DIGITS,
            "lenet5",
            "advmix_cli.data.glyphs:glyphs",
            native=(1, 28, 28),
            mean=(0.1051,),
            std=(0.2291,),
            flips=False,
        ),
        DatasetInfo(
            "mnist",
            "handwritten digits, 28x28 resized to 32x32",
            (1, 32, 32),
            {"train": 60_000, "test": 10_000},
            _DIGITS,
            "lenet5",
            "advmix_cli.data.vision:mnist",
            _like_mnist(
                "MNIST",
                train_images_idx3_ubyte="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                train_labels_idx1_ubyte="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                t10k_images_idx3_ubyte="0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                t10k_labels_idx1_ubyte="ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
            native=(1, 28, 28),
            mean=(0.1307,),
            std=(0.3081,),
            flips=False,
        ),
        DatasetInfo(
            "fashion-mnist",
            "articles of clothing, 28x28 resized to 32x32",
            (1, 32, 32),
            {"train": 60_000, "test": 10_000},
            ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
            "lenet5",
            "advmix_cli.data.vision:fashion_mnist",
            _like_mnist("FashionMNIST"),
            native=(1, 28, 28),
            mean=(0.2860,),
            std=(0.3530,),
        ),
        DatasetInfo(
            "kmnist",
            "handwritten Japanese characters, 28x28 resized to 32x32",
            (1, 32, 32),
            {"train": 60_000, "test": 10_000},
            ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
            "lenet5",
            "advmix_cli.data.vision:kmnist",
            _like_mnist("KMNIST"),
            native=(1, 28, 28),
            mean=(0.1918,),
            std=(0.3483,),
            flips=False,
        ),
        DatasetInfo(
            "cifar10",
            "colour photographs of ten kinds of things",
            (3, 32, 32),
            {"train": 50_000, "test": 10_000},
            ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
            "preactresnet18",
            "advmix_cli.data.vision:cifar10",
            {
                f"cifar-10-batches-py/{batch}": known
                for batch, known in (
                    ("data_batch_1", "54636561a3ce25bd3e19253c6b0d8538147b0ae398331ac4a2d86c6d987368cd"),
                    ("data_batch_2", "766b2cef9fbc745cf056b3152224f7cf77163b330ea9a15f9392beb8b89bc5a8"),
                    ("data_batch_3", "0f00d98ebfb30b3ec0ad19f9756dc2630b89003e10525f5e148445e82aa6a1f9"),
                    ("data_batch_4", "3f7bb240661948b8f4d53e36ec720d8306f5668bd0071dcb4e6c947f78e9682b"),
                    ("data_batch_5", "d91802434d8376bbaeeadf58a737e3a1b12ac839077e931237e0dcd43adcb154"),
                    ("test_batch", "f53d8d457504f7cff4ea9e021afcf0e0ad8e24a91f3fc42091b8adef61157831"),
                )
            },
            native=(3, 32, 32),
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2470, 0.2435, 0.2616),
        ),
        DatasetInfo(
            "cifar100",
            "colour photographs of a hundred kinds of things",
            (3, 32, 32),
            {"train": 50_000, "test": 10_000},
            tuple(_CIFAR100.split()),
            "resnet18",
            "advmix_cli.data.vision:cifar100",
            {"cifar-100-python/train": "", "cifar-100-python/test": "", "cifar-100-python/meta": ""},
            native=(3, 32, 32),
            mean=(0.5071, 0.4865, 0.4409),
            std=(0.2673, 0.2564, 0.2762),
        ),
        DatasetInfo(
            "svhn",
            "house numbers in street photographs; needs scipy",
            (3, 32, 32),
            {"train": 73_257, "test": 26_032},
            _DIGITS,
            "resnet18",
            "advmix_cli.data.vision:svhn",
            {"train_32x32.mat": "", "test_32x32.mat": ""},
            native=(3, 32, 32),
            mean=(0.4377, 0.4438, 0.4728),
            std=(0.1980, 0.2010, 0.1970),
            flips=False,
        ),
    )
}  # fmt: skip
