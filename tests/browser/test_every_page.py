"""What holds on every page: nobody is kept out, nothing is too wide for a phone, all of it is there at once."""

from itertools import product

from measuring import measure, too_wide, violations, without_cache

KIB = 1024
PAINT_MS = 2500  # five times what is aimed at: the machine that tests may be busy
ASSERTED_BYTES = 150 * KIB


def test_every_page_is_accessible_and_fits(new_page, seeded, watch):
    page = new_page(seeded.account.key)
    faults = []
    for name, path in (seeded.pages() | {"sign-in": "/sign-in"}).items():
        page.goto(path)
        for scheme, width in product(("light", "dark"), (320, 1280)):
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": 800})
            found = violations(page, colours_alone=scheme == "dark") + too_wide(page)
            faults += [f"{name}, {scheme}, {width} px: {fault}" for fault in found]
    watch.take("404")  # of the page that is not there
    assert faults == [], "\n".join(faults)


def test_every_page_is_there_at_once_weighs_little_and_holds_still(new_page, seeded, watch, figures):
    page = new_page(seeded.account.key)
    without_cache(page)
    for name, path in (seeded.pages() | {"sign-in": "/sign-in"}).items():
        page.goto(path)
        page.wait_for_load_state("load")
        figures[name] = measure(page)
    watch.take("404")
    assert [name for name, found in figures.items() if found.transferred > ASSERTED_BYTES] == []
    assert {name: found.shifted for name, found in figures.items() if found.shift > 0} == {}
    assert [name for name, found in figures.items() if found.paint_ms > PAINT_MS] == []


def test_no_page_but_the_signing_in_is_shown_to_a_stranger(new_context, seeded):
    page = new_context().new_page()
    for path in seeded.pages().values():
        page.goto(path)
        assert page.url.partition("?")[0].endswith("/sign-in"), path


def test_pages_of_another_account_are_not_there(page, seeded, watch):
    paths = [path for path in seeded.pages().values() if "/wh_" in path or path.startswith("/operators")]
    assert [page.goto(path).status for path in paths] == [404] * len(paths)
    watch.take("404")
