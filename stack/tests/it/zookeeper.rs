use stack::ZooKeeper;

#[test]
fn zookeeper_comes_back_on_its_port() {
    let dir = crate::folder();
    let zookeeper = ZooKeeper::start(dir.path()).expect("a start");
    let (port, pid) = (zookeeper.port(), zookeeper.pid());
    assert!(zookeeper.rss_bytes() > 10_000_000);
    assert!(zookeeper.cpu_seconds() > 0.0);
    zookeeper.restart().expect("a restart");
    assert_eq!(zookeeper.port(), port);
    assert_ne!(zookeeper.pid(), pid);
    zookeeper.stop().expect("an end on SIGTERM");
    assert!(!zookeeper.is_running());
}
