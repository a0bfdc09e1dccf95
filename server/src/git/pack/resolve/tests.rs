use super::*;

fn node(children: u32, next: usize) -> Node {
    let children = (0..children).collect();
    Node { root: Root::Entry(0), len: 0, data: None, base: None, chain: (0, 0), children, next }
}

#[test]
fn parts_are_halves_of_what_is_left() {
    for (children, next, given) in [(2, 1, 1), (3, 1, 1), (4, 1, 2), (100, 99, 1), (2048, 0, 1024), (5000, 1, 1024)] {
        let mut node = node(children, next);
        let part = node.split();
        assert_eq!(part, (children - given..children).collect::<Vec<_>>(), "of {children} from {next} on");
        assert_eq!(node.children.len(), (children - given) as usize);
    }
}

#[test]
fn a_part_that_nobody_takes_costs_the_same_however_many_are_left() {
    // Were it half of them, this would copy terabytes.
    let mut node = node(5_000_000, 1);
    for _ in 0..100_000 {
        let part = node.split();
        assert!(part.len() <= HANDED_MAX);
        node.children.extend(part);
    }
    assert!(node.children.into_iter().eq(0..5_000_000));
}
