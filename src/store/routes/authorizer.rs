//! What the routes' statements may do: asked by SQLite while it compiles them, the triggers that they set off included.
//!
//! SQLite compiles a statement again by itself when the tables have changed, in the middle of running it. So the rules hold
//! while route statements are prepared and while they run; what catchment itself prepares is not held to them.
//! <https://sqlite.org/c3ref/set_authorizer.html>

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use crate::store::schema::{begins, is_ours};

/// Watches over one connection.
#[derive(Clone, Debug)]
pub(in crate::store) struct Authorizer(Arc<State>);

#[derive(Debug, Default)]
struct State {
    on: AtomicBool,
    /// Rows of some table are written.
    writes: AtomicBool,
    /// What was refused, in words that continue "it".
    refusal: Mutex<Option<String>>,
    /// Tables that rows are added to, while somebody asks.
    inserts: Mutex<Option<Vec<String>>>,
}

impl Authorizer {
    pub(in crate::store) fn of(connection: &Connection) -> rusqlite::Result<Self> {
        let state = Arc::new(State::default());
        let asked = Arc::clone(&state);
        connection.authorizer(Some(move |context: AuthContext<'_>| asked.judge(&context)))?;
        Ok(Self(state))
    }

    /// Has the rules hold during the call.
    pub(in crate::store) fn watch<T>(&self, run: impl FnOnce() -> T) -> T {
        /// Also when the call panics: the connection would refuse catchment's own statements for ever.
        struct Off<'a>(&'a AtomicBool);
        impl Drop for Off<'_> {
            fn drop(&mut self) {
                self.0.store(false, Ordering::Relaxed);
            }
        }
        self.0.on.store(true, Ordering::Relaxed);
        let _off = Off(&self.0.on);
        run()
    }

    /// Whether what was compiled since this was last asked writes rows of some table.
    pub(in crate::store) fn saw_writing(&self) -> bool {
        self.0.writes.swap(false, Ordering::Relaxed)
    }

    /// The tables that what is compiled in the call adds rows to, in triggers too.
    pub(in crate::store) fn inserts(&self, compile: impl FnOnce()) -> Vec<String> {
        *self.0.inserts.lock() = Some(Vec::new());
        self.watch(compile);
        self.0.inserts.lock().take().unwrap_or_default()
    }

    /// What was refused since this was last asked.
    pub(in crate::store) fn refusal(&self) -> Option<String> {
        self.0.refusal.lock().take()
    }
}

impl State {
    fn judge(&self, context: &AuthContext<'_>) -> Authorization {
        if !self.on.load(Ordering::Relaxed) {
            return Authorization::Allow;
        }
        if let (AuthAction::Insert { table_name }, Some(inserts)) = (&context.action, &mut *self.inserts.lock()) {
            inserts.push((*table_name).to_owned());
        }
        match rule(&context.action) {
            Ok(writes) => {
                if writes {
                    self.writes.store(true, Ordering::Relaxed);
                }
                Authorization::Allow
            }
            Err(what) => {
                let within = context.accessor.map(|name| format!(", in trigger or view {name}")).unwrap_or_default();
                self.refusal.lock().get_or_insert(what + &within);
                Authorization::Deny
            }
        }
    }
}

/// Whether it writes rows, or why it is refused.
fn rule(action: &AuthAction<'_>) -> Result<bool, String> {
    match *action {
        // The tables that stand for a PRAGMA run it when they are read.
        AuthAction::Read { table_name, .. } if begins(table_name, "pragma_") => Err(format!("reads {table_name}")),
        AuthAction::Select
        | AuthAction::Recursive
        | AuthAction::Function { .. }
        | AuthAction::Read { .. }
        // Full-text indexes ask these of their own tables when they are written.
        | AuthAction::Pragma { pragma_name: "data_version" | "page_size", pragma_value: None } => Ok(false),
        AuthAction::Insert { table_name }
        | AuthAction::Delete { table_name }
        | AuthAction::Update { table_name, .. } => {
            if is_ours(table_name) {
                Err(format!("writes {table_name}, which is catchment's own"))
            } else if begins(table_name, "sqlite_") {
                Err(format!("writes {table_name}: tables, indexes and triggers are changed by migrations alone"))
            } else {
                Ok(true)
            }
        }
        AuthAction::Pragma { pragma_name, .. } => Err(format!("runs PRAGMA {pragma_name}")),
        AuthAction::Transaction { .. } | AuthAction::Savepoint { .. } => {
            Err("begins or ends a transaction: an event's statements are part of its batch's".into())
        }
        AuthAction::Attach { .. } | AuthAction::Detach { .. } => {
            Err("attaches or detaches a database: there is one database".into())
        }
        _ => {
            Err("does something else than write rows: tables, indexes and triggers are changed by migrations alone"
                .into())
        }
    }
}
