use catchment::{Collector, Config, Until};
use std::time::Duration;
fn main() {
    struct L;
    impl log::Log for L {
        fn enabled(&self, _: &log::Metadata) -> bool {
            true
        }
        fn log(&self, r: &log::Record) {
            if r.target().starts_with("catchment") {
                eprintln!("{} {}", r.level(), r.args())
            }
        }
        fn flush(&self) {}
    }
    log::set_boxed_logger(Box::new(L)).ok();
    log::set_max_level(log::LevelFilter::Debug);
    let a: Vec<String> = std::env::args().collect();
    let mut c = Config::default();
    c.broker.servers = vec![a[1].clone()];
    c.broker.stream = a[2].clone();
    c.broker.subjects = vec![a[3].clone()];
    c.database.path = a[4].clone().into();
    if let Some(b) = a.get(5) {
        c.batch.max_events = b.parse().unwrap();
    }
    let t = std::time::Instant::now();
    let mut col = Collector::start_until(&c, Until::Drained).unwrap_or_else(|e| {
        eprintln!("{e}");
        std::process::exit(1)
    });
    eprintln!("started {:?}", t.elapsed());
    while !col.wait(Duration::from_secs(1)).unwrap() {
        eprintln!("{:?}", col.status());
    }
    eprintln!("{:?} {:?}", t.elapsed(), col.stop(Duration::from_secs(1)));
}
