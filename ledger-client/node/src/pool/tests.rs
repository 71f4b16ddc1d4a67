use alloy_consensus::{SignableTransaction as _, TxLegacy};
use alloy_primitives::{Bytes, Signature, U256};

use super::*;

fn tx(sender: u8, nonce: u64, data: u8) -> Recovered<TxEnvelope> {
    let tx = TxLegacy { chain_id: Some(1), nonce, input: Bytes::from(vec![data]), ..TxLegacy::default() };
    let signed = tx.into_signed(Signature::new(U256::ONE, U256::ONE, false));
    Recovered::new_unchecked(signed.into(), Address::repeat_byte(sender))
}

fn ready(pool: &mut Pool) -> Option<u64> {
    let tx = pool.take_ready()?;
    pool.advance(&tx.signer(), tx.nonce() + 1);
    Some(tx.nonce())
}

#[test]
fn transactions_leave_in_the_order_of_their_nonces() {
    let mut pool = Pool::default();
    for nonce in [3, 0, 1] {
        pool.insert(tx(1, nonce, 0), 0, 0).unwrap();
    }
    assert_eq!(pool.nonce_after(&Address::repeat_byte(1), 0), 2);
    assert_eq!(pool.nonce_after(&Address::repeat_byte(2), 5), 5);
    assert_eq!((ready(&mut pool), ready(&mut pool), ready(&mut pool)), (Some(0), Some(1), None));
    pool.insert(tx(1, 2, 0), 2, 0).unwrap();
    assert_eq!((ready(&mut pool), ready(&mut pool), ready(&mut pool)), (Some(2), Some(3), None));
    assert!(pool.is_empty() && pool.senders.is_empty());
}

#[test]
fn what_is_refused() {
    let mut pool = Pool::default();
    pool.insert(tx(1, 5, 0), 5, 0).unwrap();
    assert_eq!(pool.insert(tx(1, 5, 0), 5, 0), Err(PoolError::Known));
    assert_eq!(pool.insert(tx(1, 5, 1), 5, 0), Err(PoolError::Replacement));
    assert_eq!(pool.insert(tx(1, 4, 1), 5, 0), Err(PoolError::NonceTooLow { next: 5, nonce: 4 }));
    let room = u64::try_from(SENDER_MAX).unwrap();
    for nonce in 6..5 + room {
        pool.insert(tx(1, nonce, 0), 5, 0).unwrap();
    }
    assert_eq!(pool.insert(tx(1, 5 + room, 0), 5, 0), Err(PoolError::SenderFull));
    for sender in 2.. {
        let mut nonces = 1..=room;
        if let Some(error) = nonces.find_map(|nonce| pool.insert(tx(sender, nonce, 0), 0, 0).err()) {
            assert_eq!(error, PoolError::Full);
            break;
        }
    }
    assert_eq!(pool.len(), POOL_MAX);
}

#[test]
fn what_waits_too_long_goes() {
    let mut pool = Pool::default();
    pool.insert(tx(1, 7, 0), 0, 100).unwrap();
    let hash = *tx(1, 7, 0).tx_hash();
    assert_eq!(pool.expire(100 + WAIT_MAX_S), 0);
    assert_eq!(pool.find(&hash).map(|tx| tx.nonce()), Some(7));
    assert_eq!(pool.expire(101 + WAIT_MAX_S), 1);
    assert!(pool.is_empty() && pool.find(&hash).is_none());
}
